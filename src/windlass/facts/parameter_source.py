"""Where one parameter of transformers' model comes from: the checkpoint tensors behind it."""

from dataclasses import dataclass, field
from math import prod

from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.tensor_fact import TensorFact


@dataclass(frozen=True, slots=True)
class ParameterSource:
    """One parameter, or a part of one: an expert's slice (`expert` set), or some rows of a matrix (`rows` set).

    `nbytes` is its size as lent: in the compute dtype, or packed. `direct` says that it is lent as it lies, a plain
    view of one checkpoint tensor, or packed; otherwise a pass over the bytes is needed (a cast, a merge, a transpose)
    and a copy is made. `packed` is set where numbers are packed: `tensors` are then the byte ranges of its tensors,
    which a direct source stacks by rows.
    """

    parameter: str
    tensors: tuple[TensorFact, ...]
    nbytes: int
    direct: bool
    expert: int | None = None
    rows: tuple[int, int] | None = None
    packed: tuple[PackedTensor, ...] = ()

    key: str = field(init=False, repr=False, compare=False)
    """Unique name: the parameter's, with `#expert` for a slice or `[start:stop]` for rows."""

    def __post_init__(self) -> None:
        # Kept, since a search over a model of many experts asks for it millions of times.
        object.__setattr__(self, "key", self._key())

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the tensors behind it, in numbers."""
        return tuple(packed.shape for packed in self.packed) or tuple(fact.shape for fact in self.tensors)

    @property
    def numbers(self) -> int:
        """How many it has."""
        return sum(prod(shape) for shape in self.shapes)

    def _key(self) -> str:
        if self.rows is not None:
            return f"{self.parameter}[{self.rows[0]}:{self.rows[1]}]"
        return self.parameter if self.expert is None else f"{self.parameter}#{self.expert}"
