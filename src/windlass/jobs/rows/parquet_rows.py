"""Rows of a Parquet file, read page by page and only the columns that are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windlass.errors import StorageError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.prompt_form import PromptForm
from windlass.jobs.arrow import load_arrow
from windlass.units import MIB

_ROWS_AT_ONCE = 32  # of a table with long texts many would be much memory
_BUFFER_BYTES = MIB  # of each column: without it a whole row group is read before its first row


class ParquetRows:
    """A row's `line` is its place among the rows, from 1. Raises UsageError where a column is absent, StorageError."""

    repeatable = True

    def __init__(self, path: str, form: PromptForm) -> None:
        self.path = path
        self._form = form
        self._arrow, self._parquet = load_arrow(path)
        with self._opened() as file:
            self._columns = tuple(file.schema_arrow.names)
        form.check(self._columns, path)

    def rows(self) -> Iterator[BatchRow | BadRow]:
        """Raises StorageError."""
        line = 0
        with self._opened() as file:
            wanted = self._form.wanted(self._columns)
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted, use_threads=False):
                for place in range(batch.num_rows):
                    line += 1
                    yield self._row(line, batch, place)

    def count(self) -> int | None:
        """Rows, as the file itself says."""
        with self._opened() as file:
            return int(file.metadata.num_rows)

    def describe(self) -> str:
        """For messages."""
        return f"{self.path} (Parquet)"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        if Path(self.path).is_dir():
            raise UsageError(f"{self.path} is a folder; name a file of it, as in {Path(self.path, 'rows.parquet')}")
        try:
            with self._parquet.ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                yield file
        except FileNotFoundError as error:
            raise UsageError(f"there is no file {self.path}; name a Parquet file with -i") from error
        except (self._arrow.ArrowException, OSError) as error:
            raise StorageError(
                f"{self.path} cannot be read as Parquet: {_first_line(error)}; write it or fetch it again"
            ) from error

    def _row(self, line: int, batch: Any, place: int) -> BatchRow | BadRow:
        columns: dict[str, object] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                columns[name] = _plain(column[place].as_py())
            except (ValueError, OverflowError) as error:  # text that is no UTF-8, a date that Python does not have
                return BadRow(line, None, f"column {name!r} cannot be read: {_first_line(error)}; mend the value")
        return self._form.row(line, columns)


def _plain(value: object) -> object:
    """Many writers mark no column as text, so bytes that are UTF-8 are taken for it."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
