"""One sequence's share of a micro-batch: where its new tokens stand in the row and where its keys and values live."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """`length` new tokens in rows `row .. row + length`, after `context` tokens that are already stored."""

    row: int
    length: int
    context: int
    pages: Sequence[int]
    """Page ids of the sequence in order; they cover at least `context + length` tokens."""
    place: int = 0
    """Where the page that is not full yet lies while it is, in a cache that packs full pages."""

    @property
    def total(self) -> int:
        """Tokens of the sequence once the new ones are stored."""
        return self.context + self.length
