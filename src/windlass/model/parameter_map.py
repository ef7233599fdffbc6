"""Which checkpoint tensors make which parameter, by transformers' own table of renamings and merges.

The table (`transformers.conversion_mapping`) is followed, not copied: keys are renamed by its renamings, and a
parameter that transformers builds out of several tensors keeps the converter that builds it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from windlass.errors import UnsupportedModel
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.parameter_sources import ParameterSources
from windlass.facts.tensor_name import Destination
from windlass.memory.checkpoint import torch_dtype
from windlass.model.text_config import TEXT_NAMES


@dataclass(frozen=True, slots=True)
class ParameterMap:
    """Sources by key, and the converters of those that are not plain views.

    `patterns` gives, for a converted key, the source pattern of each of its tensors in order.
    """

    sources: Mapping[str, ParameterSource]
    converters: Mapping[str, WeightConverter]
    patterns: Mapping[str, tuple[str, ...]]


class Renaming:
    """transformers' renamings and converters for one model; `wanted` holds its parameters and buffers by name."""

    def __init__(self, model: PreTrainedModel, wanted: Mapping[str, Any]) -> None:
        transforms = get_model_conversion_mapping(model)
        self._renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
        self._converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
        self._prefix = model.base_model_prefix
        self._wanted = dict(wanted)

    def destination(self, key: str) -> Destination:
        """The parameter a tensor of the checkpoint makes; one that is not wanted is no part of the model."""
        for candidate in _text_part_names(key):
            renamed, pattern = rename_source_key(
                candidate, self._renamings, self._converters, self._prefix, self._wanted
            )
            if renamed in self._wanted:
                break
        if pattern is None:
            return Destination(renamed)
        return Destination(renamed, pattern, len(self.converter(pattern).target_patterns))

    def converter(self, pattern: str) -> WeightConverter:
        """The one that has `pattern` among its sources."""
        return next(converter for converter in self._converters if pattern in converter.source_patterns)

    def map(self, parameters: ParameterSources) -> ParameterMap:
        """The sources together with the converters that make them. Raises CheckpointError for a dtype torch lacks."""
        for source in parameters.sources.values():
            for fact in source.tensors:
                torch_dtype(fact)
        converters = {key: self.converter(patterns[0]) for key, patterns in parameters.patterns.items()}
        for key, converter in converters.items():
            _refuse_beyond_stacking(parameters.sources[key], converter)
        return ParameterMap(parameters.sources, converters, parameters.patterns)


def _refuse_beyond_stacking(source: ParameterSource, converter: WeightConverter) -> None:
    """Raises UnsupportedModel for a packed source that transformers would do more with than put rows together."""
    beyond = [type(each).__name__ for each in converter.operations if type(each) not in (MergeModulelist, Concatenate)]
    if source.packed and source.direct and beyond:
        raise UnsupportedModel(
            f"{source.packed[0].file}: {source.parameter} is packed as {source.packed[0].dtype}, and transformers "
            f"builds it by {', '.join(beyond)}, which packed numbers cannot go through; "
            "choose a checkpoint in bfloat16"
        )


def tied_names(model: PreTrainedModel) -> dict[str, str]:
    """Parameters that are another one under a second name: `{"lm_head.weight": "model.embed_tokens.weight"}`."""
    return dict(model.all_tied_weights_keys)


def _text_part_names(key: str) -> tuple[str, ...]:
    """A key as it stands, then as the text model alone would have it: composite checkpoints nest their text part."""
    for pattern, name in TEXT_NAMES:
        if re.match(pattern, key):
            return key, re.sub(pattern, name, key)
    return (key,)
