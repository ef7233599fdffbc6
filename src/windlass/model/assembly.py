"""Makes a parameter out of the checkpoint tensors behind it: a view where it can be, a cast or a merge where not.

Merges, transposes and interleaves are transformers' own operations, run on one parameter, or one expert, at a time.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from transformers import PreTrainedModel

from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.parameter_source import ParameterSource
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.packed_product import dense
from windlass.model.packed_weight import PackedWeight
from windlass.model.parameter_map import ParameterMap


class Assembly:
    """Turns arrived tensors into parameters of one model."""

    def __init__(self, model: PreTrainedModel, parameters: ParameterMap, dtypes: Mapping[str, torch.dtype]) -> None:
        """`dtypes` gives the dtype each parameter is computed in, by name."""
        self.model, self.parameters, self.dtypes = model, parameters, dtypes

    def build(self, source: ParameterSource, arrived: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The parameter of `source` from its tensors by name. A view of them if the source is direct, else a copy."""
        converter = self.parameters.converters.get(source.key)
        dtype = self.dtypes[source.parameter]
        if source.direct and source.packed:
            transposed = source.packed[0].transposed
            return PackedWeight([_matrix(packed, arrived) for packed in source.packed], dtype, transposed)
        if source.direct:
            return arrived[source.tensors[0].name]
        stored = [_numbers(packed, arrived, dtype) for packed in source.packed]
        stored = stored or [arrived[fact.name] for fact in source.tensors]
        if converter is None:
            return stored[0].to(dtype)
        collected: dict[str, list[torch.Tensor]] = {}
        for pattern, tensor in zip(self.parameters.patterns[source.key], stored, strict=True):
            collected.setdefault(pattern, []).append(tensor)
        for operation in converter.operations:
            collected = operation.convert(
                collected,
                source_patterns=converter.source_patterns,
                target_patterns=converter.target_patterns,
                full_layer_name=source.parameter,
                model=self.model,
                config=self.model.config,
            )
        built = self._chosen(collected, source, converter.target_patterns)
        if source.expert is not None:
            built = built.squeeze(0)
        return built.to(dtype)

    def _chosen(
        self, collected: Mapping[str, torch.Tensor | list[torch.Tensor]], source: ParameterSource, targets: list[str]
    ) -> torch.Tensor:
        """A converter with several targets made them all; the one whose pattern ends this parameter's name is ours."""
        pattern = next((t for t in targets if t in collected and t.strip("^$.") in source.parameter), targets[0])
        built = collected[pattern]
        return built[0] if isinstance(built, list) else built


def _matrix(packed: PackedTensor, arrived: Mapping[str, torch.Tensor]) -> PackedMatrix:
    rows, columns = packed.shape
    parts = {role: arrived[fact.name] for role, fact in packed.parts}
    return PackedMatrix(packed.packing, (rows, columns), parts, packed.heads)


def _numbers(packed: PackedTensor, arrived: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """A packed tensor of any shape as plain numbers."""
    columns = packed.shape[-1]
    flat = replace(packed, shape=(prod(packed.shape[:-1]), columns))
    numbers = dense(_matrix(flat, arrived), torch.float32 if packed.shift else dtype)
    numbers = (numbers + packed.shift if packed.shift else numbers).to(dtype).view(packed.shape)
    return numbers.mT if packed.transposed else numbers
