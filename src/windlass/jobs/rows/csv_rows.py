"""Rows of a CSV file with a header: quoted fields may hold commas, quotes and line ends; the encoding is UTF-8.

What is broken costs its own row: records are found by the standard library's reader in its strict mode, and one with
too many bytes or with bytes that are no UTF-8 is read past to its end. A quote that nothing closes takes with it what
follows, up to the next quote, as it must in this format.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from windlass.errors import UsageError
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.prompt_form import PromptForm
from windlass.jobs.rows.row_file import MAX_ROW_BYTES, cheap_to_count, is_regular, opened_rows
from windlass.units import MIB, format_size

_BOM = b"\xef\xbb\xbf"


class CsvRows:
    """A row's `line` is that on which it begins in the file, as an editor counts: the header is line 1.

    A record of more than `row_bytes` is a bad row. Raises UsageError where the header has not what `form` asks of each
    row, StorageError.
    """

    def __init__(self, path: str, form: PromptForm, delimiter: str = ",", row_bytes: int = MAX_ROW_BYTES) -> None:
        self.path = path
        self.repeatable = is_regular(path)
        self._form = form
        self._delimiter = delimiter
        self._row_bytes = row_bytes
        if self.repeatable:
            with self._records():
                pass

    def rows(self) -> Iterator[BatchRow | BadRow]:
        """Raises UsageError and StorageError."""
        with self._records() as (header, records):
            for line, fields in records:
                yield BadRow(line, None, fields) if isinstance(fields, str) else self._row(line, header, fields)

    def count(self) -> int | None:
        """Rows, where it is cheap to know."""
        if not cheap_to_count(self.path):
            return None
        with self._records() as (_, records):
            return sum(1 for _ in records)

    def describe(self) -> str:
        """For messages."""
        return f"{self.path} ({'CSV' if self._delimiter == ',' else 'tab-separated values'})"

    @contextmanager
    def _records(self) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str] | str]]]]:
        """The header, and after it each record with its line: the fields, or what is wrong."""
        # The library has one limit for the whole process; ours is on the record and stands in _RecordLines.
        csv.field_size_limit(max(csv.field_size_limit(), self._row_bytes))
        with opened_rows(self.path) as file:
            records = _records(_RecordLines(file, self._row_bytes), self._delimiter)
            line, header = next(records, (1, "there is no line in it"))
            if isinstance(header, str):
                raise UsageError(f"the header of {self.path} (line {line}) cannot be read: {header}")
            self._form.check(tuple(header), self.path)
            yield header, records

    def _row(self, line: int, header: list[str], fields: list[str]) -> BatchRow | BadRow:
        if len(fields) != len(header):
            return BadRow(line, None, f"the row has {len(fields)} fields and the header {len(header)}; quote the texts")
        return self._form.row(line, dict(zip(header, fields, strict=True)))


class _LongRecord(Exception):
    """More bytes than a row may have; the file stands at its end."""

    def __init__(self, nbytes: int) -> None:
        super().__init__(nbytes)
        self.nbytes = nbytes


class _RecordLines:
    """Lines for csv.reader. `begin` is called before each record, which may take `limit` bytes from there on."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.limit = limit
        self._file = file
        self._lines_read = 0
        self._taken = 0
        self._in_quotes = False

    def begin(self) -> int:
        """The number of the line on which the next record begins."""
        self._taken, self._in_quotes = 0, False
        return self._lines_read + 1

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        raw = self._read(self.limit - self._taken + 1)
        if not raw:
            raise StopIteration
        if self._taken > self.limit:
            self._skip(raw)
            raise _LongRecord(self._taken)
        # Bytes that are no UTF-8 are let through, so that the record ends where it does.
        return (raw.removeprefix(_BOM) if self._lines_read <= 1 else raw).decode(errors="surrogateescape")

    def _skip(self, raw: bytes) -> None:
        """To the end of the record: a line's end with quotes in pairs before it."""
        while raw and (self._in_quotes or not raw.endswith(b"\n")):
            raw = self._read(MIB)

    def _read(self, limit: int) -> bytes:
        raw = self._file.readline(limit)
        self._taken += len(raw)
        self._lines_read += raw.endswith(b"\n")
        self._in_quotes ^= raw.count(b'"') % 2 == 1
        return raw


def _records(lines: _RecordLines, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Each record that is not blank with its line: its fields, or what is wrong with it."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.begin()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield line, _fault(error)
            continue
        except _LongRecord as long:
            most = format_size(lines.limit)
            yield line, f"the row has {format_size(long.nbytes)}, and may have {most}; is a quote left open in it?"
            continue
        if fields is None:
            return
        if fields:
            yield line, fields if _is_text(fields) else "the row is not UTF-8; convert the file, for example with iconv"


def _is_text(fields: list[str]) -> bool:
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault(error: csv.Error) -> str:
    """The library's words, with what is behind them where it is known."""
    said = str(error)
    if "unexpected end" in said:
        return "a quote is opened in this row and never closed; close it, and the rows after it are rows again"
    if "new-line character" in said:
        return "a carriage return stands outside quotes; end lines with a line feed, as with tr '\\r' '\\n'"
    if "NUL" in said:  # Python 3.10 alone
        return "a zero byte stands in the row; leave it out, or run a newer Python"
    return f"not CSV: {said}; write a quote inside a quoted text twice"
