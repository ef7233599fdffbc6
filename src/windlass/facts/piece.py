"""Which byte ranges to read so that some tensors arrive together, and where each then lies in the buffer.

Pure geometry: the planner prices a piece by it and the disk lane reads by it. Ranges begin at multiples of 4096 bytes,
as direct I/O wants; neighbours are read in one go and what little lies between them comes along.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from windlass.facts.extent import Extent
from windlass.facts.tensor_fact import TensorFact
from windlass.units import KIB

BLOCK = 4096
# Neighbours in a file this close are read in one go.
GAP = 256 * KIB


@dataclass(frozen=True, slots=True)
class Piece:
    """Tensors that are read and lent together.

    `extents` pairs each range of a file with its offset in the buffer (both multiples of 4096; the range ends with the
    last byte wanted). `places` maps a tensor's name to the offset of its data. `nbytes` is a multiple of 4096.
    """

    extents: tuple[tuple[Extent, int], ...]
    places: Mapping[str, int]
    nbytes: int


def plan_piece(tensors: Sequence[TensorFact], gap: int = GAP) -> Piece:
    """One piece of all `tensors`; those of a file at most `gap` bytes apart are read as one extent."""
    extents: list[tuple[Extent, int]] = []
    places: dict[str, int] = {}
    nbytes = 0
    for group in _neighbours(tensors, gap):
        start = group[0].offset - group[0].offset % BLOCK
        extent = Extent(group[0].file, start, max(fact.end for fact in group) - start)
        places |= {fact.name: nbytes + fact.offset - start for fact in group}
        extents.append((extent, nbytes))
        nbytes += round_up(extent.nbytes)
    return Piece(tuple(extents), places, nbytes)


def round_up(nbytes: int) -> int:
    """The next multiple of 4096."""
    return nbytes + -nbytes % BLOCK


def _neighbours(tensors: Sequence[TensorFact], gap: int) -> Iterator[list[TensorFact]]:
    """Groups of tensors of one file, in the order of their bytes, with at most `gap` bytes between them."""
    ordered = sorted(tensors, key=lambda fact: (fact.file, fact.offset, fact.end))
    for _, of_file in groupby(ordered, key=lambda fact: fact.file):
        group: list[TensorFact] = []
        for fact in of_file:
            if group and fact.offset - group[-1].end > gap:
                yield group
                group = []
            group.append(fact)
        yield group
