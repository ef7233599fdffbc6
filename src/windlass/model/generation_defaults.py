"""Reads what a checkpoint says about ending and sampling, so that an answer ends where its maker meant it to.

A missing end id in silence would mean answers that run on to the length limit.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windlass.errors import CheckpointError, UsageError
from windlass.facts.generation_defaults import GenerationDefaults
from windlass.facts.sampling_params import SamplingParams

FILE = "generation_config.json"
# Settings that change tokens in transformers, with the value that does nothing.
_UNHEEDED = {
    "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1,
    "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "bad_words_ids": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "sequence_bias": None,
    "guidance_scale": 1.0, "length_penalty": 1.0, "penalty_alpha": 0.0,
}  # fmt: skip


def read_generation_defaults(
    folder: str | Path, config: Mapping[str, Any], tokenizers_ends: tuple[int, ...] = ()
) -> GenerationDefaults:
    """generation_config.json of the folder before `config` (config.json as a mapping) before its text_config.

    Where none of them names an end id, those of the tokenizer are taken.

    Sampling follows transformers: greedy unless `do_sample` is true, and then only what the file names is set; a
    penalty for repetition counts either way.
    Raises CheckpointError for a file that is no JSON object or holds a value that makes no sense.
    """
    path = Path(folder) / FILE
    said = _read(path)
    nested = config.get("text_config")
    sources = (said, config, nested if isinstance(nested, Mapping) else {})
    return GenerationDefaults(
        eos_token_ids=_ids("eos_token_id", sources, path) or tokenizers_ends,
        bos_token_id=next(iter(_ids("bos_token_id", sources, path)), None),
        sampling_params=_sampling_params(said, path),
        unheeded=tuple(
            f"{name}={said[name]}" for name, neutral in _UNHEEDED.items() if said.get(name) not in (None, neutral)
        ),
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # a GGUF file has nothing beside it that is its own
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; download it again or remove it") from error
    if not isinstance(said, dict):
        raise CheckpointError(f"{path} holds a {type(said).__name__}, not an object; download it again or remove it")
    return said


def _ids(name: str, sources: tuple[Mapping[str, Any], ...], path: Path) -> tuple[int, ...]:
    """The first source that names any: one id or a list of them."""
    value = next((source[name] for source in sources if source.get(name) is not None), ())
    ids = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for item in ids:
        if isinstance(item, bool) or not isinstance(item, int):
            raise CheckpointError(f"{name} is {value!r} in {path} or config.json beside it; write an id or a list")
    return tuple(item for item in ids if item >= 0)  # some makers write -1 for none


def _sampling_params(said: Mapping[str, Any], path: Path) -> SamplingParams:
    names = {"max_new_tokens": "max_tokens", "repetition_penalty": "repetition_penalty"}
    if said.get("do_sample"):
        names |= {name: name for name in ("temperature", "top_k", "top_p", "min_p")}
    chosen = {ours: said[theirs] for theirs, ours in names.items() if said.get(theirs) is not None}
    if not said.get("do_sample"):
        chosen["temperature"] = 0.0
    try:
        return SamplingParams(**chosen)
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from error
