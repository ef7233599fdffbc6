"""Weights that arrive, are lent to the model and leave together."""

from dataclasses import dataclass

from windlass.facts.parameter_source import ParameterSource


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """A layer's weights, one expert's, the head's (or a part of it), the embedding table, or what lies outside.

    `kind` is one of "outer", "embedding", "layer", "expert", "head". An embedding is read by rows, an expert only
    when a token wants it, the others once a pass. `layer` is the decoder layer's index where there is one.
    """

    name: str
    kind: str
    sources: tuple[ParameterSource, ...]
    layer: int | None = None
    expert: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the group as lent."""
        return sum(source.nbytes for source in self.sources)
