"""Where the rows of a job come from."""

from collections.abc import Iterator
from typing import Protocol

from windlass.facts.batch_row import BadRow, BatchRow

Row = BatchRow | BadRow


class RowSource(Protocol):
    """An input of any size, read as it is wanted. Numbers (`line`) rise from 1 and are the same at every reading."""

    def rows(self) -> Iterator[Row]:
        """Every row, the first one first. Raises UsageError where there is no such input, StorageError."""

    def count(self) -> int | None:
        """About how many there are, for progress; None where that is not quickly known."""

    def describe(self) -> str:
        """For messages."""
