"""An answer that was asked to be longer than the model can make it: cut to what there is room for, and that is said."""

import sys
from dataclasses import replace

from windlass.facts.sampling_params import SamplingParams


def within_the_model(params: SamplingParams, prompt_len: int, longest: int, asked: bool) -> SamplingParams:
    """`params` cut to a model of `longest` tokens. Said on standard error where somebody `asked` for that length."""
    room = longest - prompt_len
    if params.max_tokens is None or not 0 < room < params.max_tokens:
        return params
    if asked:
        sys.stderr.write(
            f"warning: --max-tokens {params.max_tokens} is more than the {room} that a prompt of {prompt_len} tokens "
            f"leaves of the {longest} this model takes; the answer ends there at the latest\n"
        )
    return replace(params, max_tokens=room)
