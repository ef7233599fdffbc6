"""Finds the packed tensors of a quantised checkpoint, by the method that its config.json names.

A method turns the raw tensors of a matrix (codes, scales, zeros) into one PackedTensor under the name that the plain
matrix would have, so that everything else sees the model's own parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from windlass.errors import UnsupportedModel
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.own_checkpoint import own_checkpoint

Method = Callable[[CheckpointFacts, Mapping[str, Any]], CheckpointFacts]

METHODS: Mapping[str, Method] = {
    "windlass": own_checkpoint,
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
    name = settings.get("quant_method", "unknown")
    if name not in METHODS:
        raise UnsupportedModel(
            f"{place} holds weights quantised with {name}, which Windlass cannot read; it reads {', '.join(METHODS)}: "
            "choose one of these, or the model's float16 or bfloat16 checkpoint"
        )
    stated = config.get("dtype") or config.get("torch_dtype")
    return replace(METHODS[name](read(), settings), stated_dtype=_STATED.get(str(stated), "BF16"))


def quantisation_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of a config that says its weights are quantised, or None; a composite one may say it of its text."""
    for values in (config, config.get("text_config")):
        settings = values.get("quantization_config") if isinstance(values, Mapping) else None
        if settings:
            return settings if isinstance(settings, Mapping) else {"quant_method": str(settings)}
    return None
