"""Rows that come only once, from a pipe, and are looked at before they are asked."""

from collections.abc import Iterator
from itertools import chain

from windlass.facts.batch_row import BadRow, BatchRow
from windlass.jobs.rows.row_source import RowSource


class HeldRows:
    """The rows of a source, which is read once. Each call of `rows` begins again, until a good row was given.

    Up to there rows are held, so that it can be known early whether there is any; who reads past the first good row
    has the rest for himself.
    """

    repeatable = False

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._rest: Iterator[BatchRow | BadRow] | None = None
        self._held: list[BatchRow | BadRow] = []
        self._is_held = True

    def rows(self) -> Iterator[BatchRow | BadRow]:
        """Raises UsageError and StorageError."""
        if self._rest is None:
            self._rest = self._source.rows()
        held, rest = list(self._held), self._rest
        return chain(held, self._kept(rest))

    def count(self) -> int | None:
        """How many there are, where the source can say so."""
        return self._source.count()

    def describe(self) -> str:
        """The source, for messages."""
        return self._source.describe()

    def _kept(self, rest: Iterator[BatchRow | BadRow]) -> Iterator[BatchRow | BadRow]:
        for row in rest:
            if self._is_held:
                self._held.append(row)
                self._is_held = isinstance(row, BadRow)
            yield row
