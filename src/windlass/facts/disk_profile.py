"""How a disk reads best: the size and number of reads that measured fastest, and whether direct I/O works there."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DiskProfile:
    """`rate` bytes/s with `depth` reads of `chunk` bytes in flight; 0.0 when it was not measured.

    `direct` says whether files are opened with O_DIRECT, `reason` why (or why not), for people.
    """

    rate: float
    chunk: int
    depth: int
    direct: bool
    reason: str
