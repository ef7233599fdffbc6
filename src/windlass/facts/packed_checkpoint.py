"""Finds the packed tensors of a quantised checkpoint, by the method that its config.json names.

A method turns the raw tensors of a matrix (codes, scales, zeros) into one PackedTensor under the name that the plain
matrix would have, so that everything else sees the model's own parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.formats.awq import packed_awq
from windlass.facts.formats.compressed_tensors import packed_compressed
from windlass.facts.formats.fp8 import packed_fp8
from windlass.facts.formats.gptq import packed_gptq
from windlass.facts.formats.mxfp4 import packed_mxfp4
from windlass.facts.formats.unread import method_not_read
from windlass.facts.own_checkpoint import own_checkpoint

Method = Callable[[CheckpointFacts, Mapping[str, Any]], CheckpointFacts]

METHODS: Mapping[str, Method] = {
    "windlass": own_checkpoint,
    "awq": packed_awq,
    "gptq": packed_gptq,
    "compressed-tensors": packed_compressed,
    "fp8": packed_fp8,
    "fbgemm_fp8": packed_fp8,
    "mxfp4": packed_mxfp4,
}
"""By `quant_method`."""

# safetensors' names of what a config may compute in.
_STATED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def packed_checkpoint(
    place: PurePath | str, config: Mapping[str, Any], read: Callable[[], CheckpointFacts]
) -> CheckpointFacts:
    """The checkpoint that `read` gives as the model sees it: with packed tensors where the config says it is quantised.

    `place` is its folder or name. Raises UnsupportedModel for a method that is not known, before anything is read, and
    CheckpointError where the tensors are not as the method has them.
    """
    settings = quantisation_of(config)
    if settings is None:
        return read()
    name = _method_of(settings)
    if name not in METHODS:
        raise method_not_read(place, name)
    return replace(METHODS[name](read(), settings), stated_dtype=_stated_dtype(config))


def quantisation_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of a config that says its weights are quantised, or None; a composite one may say it of its text."""
    for values in _parts(config):
        settings = values.get("quantization_config") or values.get("compression_config")
        if settings:
            return settings if isinstance(settings, Mapping) else {"quant_method": str(settings)}
    return None


def _method_of(settings: Mapping[str, Any]) -> str:
    """Its name; bitsandbytes did not always give one."""
    unnamed = "bitsandbytes" if "load_in_4bit" in settings or "load_in_8bit" in settings else "an unnamed method"
    return str(settings.get("quant_method", unnamed)).lower()


def _stated_dtype(config: Mapping[str, Any]) -> str:
    """What a config computes in, by safetensors' name; bfloat16 where it does not say."""
    stated = (values.get("dtype") or values.get("torch_dtype") for values in _parts(config))
    return next((_STATED[str(dtype)] for dtype in stated if str(dtype) in _STATED), "BF16")


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The config, and that of its text part where it nests one."""
    return [values for values in (config, config.get("text_config")) if isinstance(values, Mapping)]
