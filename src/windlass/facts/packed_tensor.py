"""A tensor of a checkpoint whose numbers are packed: one or several byte ranges that together hold it."""

from dataclasses import dataclass, replace
from math import prod

from windlass.facts.packing import Packing
from windlass.facts.tensor_fact import TensorFact


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """The tensor `name` of `shape`, (N, K) or (E, N, K) for E experts, as the parameter that it makes has it.

    `parts` gives, by role ("codes", "scales", ...), the bytes that hold it; what the roles are is the packing's matter.
    Where `heads` is set, the rows of each of so many heads lie as pairs (0, n/2), (1, n/2 + 1), ... (GGUF's rotary
    order). `shift` is added to every number (GGUF stores gemma's norms with 1 added). Where `transposed` is set, the
    parameter has inputs before outputs, (K, N) or (E, K, N), and is multiplied from the right.
    """

    name: str
    shape: tuple[int, ...]
    packing: Packing
    parts: tuple[tuple[str, TensorFact], ...]
    heads: int = 0
    shift: float = 0.0
    transposed: bool = False

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """The shape of the parameter that it makes."""
        return (*self.shape[:-2], *self.shape[:-3:-1]) if self.transposed else self.shape

    @property
    def facts(self) -> tuple[TensorFact, ...]:
        """The byte ranges."""
        return tuple(fact for _, fact in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(fact.nbytes for fact in self.facts)

    @property
    def dtype(self) -> str:
        """The packing's name, where a plain tensor has safetensors' name of its type."""
        return self.packing.name

    @property
    def file(self) -> str:
        """The file of the first part."""
        return self.facts[0].file

    @property
    def offset(self) -> int:
        """Where the first part lies in its file."""
        return self.facts[0].offset

    @property
    def bits_per_number(self) -> float:
        """With the share of the scales."""
        return 8 * self.nbytes / prod(self.shape)

    def expert(self, number: int) -> "PackedTensor":
        """The matrix of one expert; every part counts the experts first."""
        experts = self.shape[0]
        parts = tuple((role, _cut(fact, number, experts)) for role, fact in self.parts)
        return replace(self, name=f"{self.name}#{number}", shape=self.shape[1:], parts=parts)

    def rows(self, start: int, stop: int) -> "PackedTensor":
        """Rows start .. stop of a matrix whose packing can be cut there; only a packing of one part can."""
        step = self.packing.row_step
        assert step and start % step == 0 and not self.heads, f"{self.name} cannot be cut at row {start}"
        ((role, fact),) = self.parts
        units = -(-self.shape[0] // step)
        unit, first, last = fact.nbytes // units, start // step, -(-stop // step)
        part = replace(
            fact,
            name=f"{fact.name}[{start}:{stop}]",
            shape=(last - first, *fact.shape[1:]),
            offset=fact.offset + first * unit,
            nbytes=(last - first) * unit,
        )
        return replace(
            self, name=f"{self.name}[{start}:{stop}]", shape=(stop - start, *self.shape[1:]), parts=((role, part),)
        )


def _cut(fact: TensorFact, number: int, experts: int) -> TensorFact:
    step = fact.nbytes // experts
    return replace(
        fact,
        name=f"{fact.name}#{number}",
        shape=fact.shape[1:],
        offset=fact.offset + number * step,
        nbytes=step,
    )
