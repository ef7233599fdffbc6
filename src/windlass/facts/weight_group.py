"""Weights that arrive, are lent to the model and leave together."""

from dataclasses import dataclass, field

from windlass.facts.parameter_source import ParameterSource
from windlass.facts.piece import plan_piece


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
    buffer_bytes: int = field(init=False, repr=False, compare=False)
    """What an expert takes in a buffer when all of it is read; 0 for other kinds."""

    def __post_init__(self) -> None:
        # Kept, since a search over a model of many experts asks for it millions of times.
        tensors = {fact.name: fact for source in self.sources for fact in source.tensors}
        whole = plan_piece(tuple(tensors.values())).nbytes if self.kind == "expert" and tensors else 0
        object.__setattr__(self, "buffer_bytes", whole)

    @property
    def nbytes(self) -> int:
        """Bytes of the group as lent."""
        return sum(source.nbytes for source in self.sources)
