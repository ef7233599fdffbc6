"""Answers as a folder of Parquet parts, which any reader takes as one table: `pandas.read_parquet("answers/")`.

A Parquet file is worth nothing before its last byte, so a part is written whole under a name that readers pass over,
synced, and renamed. A kill loses the rows that waited for their part; `position` counts only those in parts.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from windlass.errors import StorageError, UsageError
from windlass.facts.answer_columns import ANSWER_COLUMNS, Columns, answer_columns
from windlass.jobs.answers.whole_file import sync_folder, whole
from windlass.jobs.arrow import load_arrow
from windlass.units import MIB

PART_ROWS = 1000  # an engine that streams gives some rows a second, so that a part comes every few minutes
PART_BYTES = 64 * MIB  # of text that waits in memory
_PART = re.compile(r"part-(\d{5,})\.parquet")
_TEMPORARY = ".part.tmp"  # the leading dot hides it from readers of the folder


class ParquetAnswers:
    """`part_rows` and `part_bytes`: a part is written when as much waits. Raises UsageError and StorageError."""

    def __init__(
        self, path: str, may_exist: bool = False, part_rows: int = PART_ROWS, part_bytes: int = PART_BYTES
    ) -> None:
        self.path = path
        self._folder = Path(path)
        self._arrow, self._parquet = load_arrow(path)
        self._part_rows, self._part_bytes = part_rows, part_bytes
        kinds = {True: self._arrow.int64(), False: self._arrow.string()}
        self._schema = self._arrow.schema([(name, kinds[number]) for name, number in ANSWER_COLUMNS.items()])
        self._created = _make_folder(self._folder)
        if self._parts() and not may_exist:
            raise UsageError(f"{path} holds answers ({self._parts()[-1].name}); name another folder, or --overwrite")
        self._waiting: list[Columns] = []
        self._waiting_bytes = 0
        self._rows = self._complete = 0
        self._begun = False

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Takes all rows or, raising StorageError, none. The first ones replace the parts that were there."""
        if not rows:
            return
        before, bytes_before = len(self._waiting), self._waiting_bytes
        self._waiting += map(answer_columns, rows)
        self._waiting_bytes += _nbytes(self._waiting[before:])
        try:
            self._begin()
            if len(self._waiting) >= self._part_rows or self._waiting_bytes >= self._part_bytes:
                self._write_part()
        except StorageError:
            del self._waiting[before:]
            self._waiting_bytes = bytes_before
            raise

    def sync(self) -> None:
        """Each part is on the disk when it has its name; rows that wait for one stay where they are."""

    def position(self) -> dict[str, object]:
        """Complete parts, and the rows in them."""
        return {"rows": self._rows, "parts": self._complete}

    def rewind(self, position: Mapping[str, object]) -> None:
        """Removes later parts and rows that wait. Raises StorageError for a part that is absent, damaged or another."""
        rows, parts = whole(position, "rows"), whole(position, "parts")
        found = sum(self._rows_of(number) for number in range(parts))
        if found != rows:
            raise StorageError(
                f"the first {parts} parts in {self.path} hold {found} rows, and {rows} were written: one was replaced; "
                f"put it back, or begin again with --restart"
            )
        self._rows, self._complete, self._begun = rows, parts, False
        self._waiting, self._waiting_bytes = [], 0
        self._begin()

    def close(self) -> None:
        """Writes the last part. A folder that was not there and got no rows is removed."""
        if self._waiting:
            self._write_part()
        if self._created and not self._complete and self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _begin(self) -> None:
        """Removes parts that are not this job's, once."""
        if self._begun:
            return
        try:
            for part in reversed(self._parts()):
                if _number(part) >= self._complete:
                    part.unlink()
            (self._folder / _TEMPORARY).unlink(missing_ok=True)
            sync_folder(self._folder)
            sync_folder(self._folder.absolute().parent)
        except OSError as error:
            raise StorageError(
                f"cannot remove old parts in {self.path}: {error.strerror}; see to the folder"
            ) from error
        self._begun = True

    def _write_part(self) -> None:
        temporary, part = self._folder / _TEMPORARY, self._part(self._complete)
        try:
            with open(temporary, "wb") as file:
                self._parquet.write_table(self._arrow.Table.from_pylist(self._waiting, self._schema), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, part)
            sync_folder(self._folder)
        except OSError as error:
            with suppress(OSError):  # what cannot be removed now is when the job goes on
                temporary.unlink(missing_ok=True)
            raise StorageError(
                f"cannot write {part}: {error.strerror or error}; {self._rows} rows are in {self._complete} parts. "
                f"Free some space, or see that the disk is there, and go on"
            ) from error
        self._rows += len(self._waiting)
        self._complete += 1
        self._waiting, self._waiting_bytes = [], 0

    def _rows_of(self, number: int) -> int:
        part = self._part(number)
        try:
            return int(self._parquet.read_metadata(part).num_rows)
        except FileNotFoundError as error:
            raise StorageError(
                f"{part} is gone, and was written; put it back, or begin again with --restart"
            ) from error
        except (self._arrow.ArrowException, OSError) as error:
            raise StorageError(
                f"{part} is damaged ({str(error).partition(chr(10))[0]}); put it back, or begin again with --restart"
            ) from error

    def _parts(self) -> list[Path]:
        return sorted((part for part in self._folder.iterdir() if _PART.fullmatch(part.name)), key=_number)

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.parquet"


def _number(part: Path) -> int:
    found = _PART.fullmatch(part.name)
    assert found is not None
    return int(found[1])


def _nbytes(rows: Sequence[Columns]) -> int:
    return sum(len(value) for row in rows for value in row.values() if isinstance(value, str))


def _make_folder(folder: Path) -> bool:
    """Whether it had to be made; its parent must be there, as for a file."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise UsageError(f"{folder} is a file, and answers in Parquet are a folder of parts; name another") from error
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}; name a folder in one you may write to") from error
    return True
