"""Text that a model writes by itself, to be calibrated with where nobody has a file for it.

What goes through its matrices then is of the kind that they were made for, and no data is asked for (Liu and others,
LLM-QAT, 2023). Random tokens would not do: what they send through a model is so unlike text that to pack by it is worse
than to pack by nothing.
"""

import torch

from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams

SEQUENCES, LENGTH = 128, 64
"""All are written at once, so a model larger than memory is read as often as a sequence is long."""


def own_text(llm: LLM) -> list[list[int]]:
    """SEQUENCES prompts of LENGTH tokens, fewer where the model takes no more; the same whenever they are asked for."""
    length = min(LENGTH, llm.opened.facts.max_model_len)
    asked = [{"prompt_token_ids": [first]} for first in _first_tokens(llm)]
    ways = [
        SamplingParams(max_tokens=length - 1, temperature=1.0, ignore_eos=True, seed=seed) for seed in range(SEQUENCES)
    ]
    prompts = zip(asked, llm.generate(asked, ways), strict=True)
    return [[*prompt["prompt_token_ids"], *written.outputs[0].token_ids] for prompt, written in prompts]


def _first_tokens(llm: LLM) -> list[int]:
    """What begins a text, else any tokens."""
    bos = llm.tokenizer.bos_token_id
    if bos is not None:
        return [bos] * SEQUENCES
    generator = torch.Generator().manual_seed(0)
    drawn: list[int] = torch.randint(llm.opened.facts.vocab_size, (SEQUENCES,), generator=generator).tolist()
    return drawn
