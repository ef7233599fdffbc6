"""Makes a parameter out of the checkpoint tensors behind it: a view where it can be, a cast or a merge where not.

Merges, transposes and interleaves are transformers' own operations, run on one parameter, or one expert, at a time.
"""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from windlass.facts.parameter_source import ParameterSource
from windlass.model.parameter_map import ParameterMap


class Assembly:
    """Turns arrived tensors into parameters of one model."""

    def __init__(self, model: PreTrainedModel, parameters: ParameterMap, dtypes: Mapping[str, torch.dtype]) -> None:
        """`dtypes` gives the dtype each parameter is computed in, by name."""
        self.model, self.parameters, self.dtypes = model, parameters, dtypes

    def build(self, source: ParameterSource, arrived: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The parameter of `source` from its tensors by name. A view of them if the source is direct, else a copy."""
        converter = self.parameters.converters.get(source.key)
        if source.direct:
            return arrived[source.tensors[0].name]
        if converter is None:
            return arrived[source.tensors[0].name].to(self.dtypes[source.parameter])
        collected: dict[str, list[torch.Tensor]] = {}
        for pattern, fact in zip(self.parameters.patterns[source.key], source.tensors, strict=True):
            collected.setdefault(pattern, []).append(arrived[fact.name])
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
        return built.to(self.dtypes[source.parameter])

    def _chosen(
        self, collected: Mapping[str, torch.Tensor | list[torch.Tensor]], source: ParameterSource, targets: list[str]
    ) -> torch.Tensor:
        """A converter with several targets made them all; the one whose pattern ends this parameter's name is ours."""
        pattern = next((t for t in targets if t in collected and t.strip("^$.") in source.parameter), targets[0])
        built = collected[pattern]
        return built[0] if isinstance(built, list) else built
