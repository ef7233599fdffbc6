"""How many numbers of some weights are packed, and in how many bytes: what a product with them costs goes by both."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from windlass.facts.parameter_source import ParameterSource


@dataclass(frozen=True, slots=True)
class PackedNumbers:
    """`numbers` of the packing `name`, whose codes have `bits` bits, in `nbytes`. Experts count on average."""

    name: str
    bits: int
    numbers: float
    nbytes: float


def packed_numbers(sources: Iterable[ParameterSource], share: float = 1.0) -> tuple[PackedNumbers, ...]:
    """What is packed of some sources, by packing; `share` of it, where an average is wanted."""
    numbers: dict[tuple[str, int], float] = defaultdict(float)
    nbytes: dict[tuple[str, int], float] = defaultdict(float)
    for source in sources:
        for tensor in source.packed:
            rows, columns = tensor.shape[-2:]
            key = (tensor.packing.name, tensor.packing.bits)
            numbers[key] += share * rows * columns
            nbytes[key] += share * tensor.nbytes
    return tuple(PackedNumbers(*key, numbers[key], nbytes[key]) for key in numbers)
