"""A range of bytes of a file: what a disk is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """The `nbytes` bytes of `file` from byte `offset` on."""

    file: str
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """The first byte after the range."""
        return self.offset + self.nbytes
