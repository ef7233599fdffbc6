"""Answers as JSON lines: whole rows only, in a file that is cut back to where it was known good, or a stream."""

import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from windlass.errors import StorageError, UsageError
from windlass.jobs.answers.whole_file import sync_folder, whole

_STANDARD_OUTPUT = "-"
_TAIL_BYTES = 4096  # enough to tell an answer's end from that of another file


class JsonlAnswers:
    """`-` is standard output, which like any pipe takes rows and is never cut. Raises UsageError and StorageError."""

    def __init__(self, path: str, may_exist: bool = False) -> None:
        self.path = path
        self._existed = path != _STANDARD_OUTPUT and Path(path).exists()
        self._file = _open(path, may_exist)
        self._regular = path != _STANDARD_OUTPUT and Path(path).is_file()
        self._rows = self._bytes = 0
        self._safe: dict[str, object] = {"rows": 0, "bytes": 0, "tail": 0}
        self._touched = False  # by this job
        self._named = False  # on the disk, as far as this job has seen to it

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Takes all rows or, raising StorageError, none. Raises BrokenPipeError when a reader has gone."""
        if not rows:
            return
        # Half a surrogate pair in a name is written as the escape it came as.
        lot = b"".join(json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n" for row in rows)
        self._cut()
        try:
            _write_all(self._file, lot)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure("write", error) from error
        self._rows += len(rows)
        self._bytes += len(lot)

    def sync(self) -> None:
        """A stream has nothing to sync: what was given to it is gone."""
        if self._regular and self._touched:
            try:
                os.fsync(self._file.fileno())
                if not self._named:
                    sync_folder(Path(self.path).absolute().parent)
                    self._named = True
            except OSError as error:
                raise self._failure("write", error) from error
        self._safe = {"rows": self._rows, "bytes": self._bytes, "tail": self._tail(self._bytes)}

    def position(self) -> dict[str, object]:
        """Rows and bytes at the last sync, and a checksum of the last of them."""
        return dict(self._safe)

    def rewind(self, position: Mapping[str, object]) -> None:
        """A file that is shorter, or by its last bytes before the position another, raises StorageError."""
        rows, nbytes = whole(position, "rows"), whole(position, "bytes")
        if not self._regular:
            if rows:
                raise StorageError(
                    f"{self.path} is no file, so that {rows} rows in it cannot be gone on from; name one"
                )
            return
        there = os.fstat(self._file.fileno()).st_size
        if there < nbytes:
            raise StorageError(
                f"{self.path} has {there} bytes, and {nbytes} ({rows} rows) were written: it was cut or replaced; put "
                f"it back, or begin again with --restart"
            )
        if self._tail(nbytes) != position.get("tail", 0):
            raise StorageError(
                f"{self.path} does not hold at byte {nbytes} what was written there ({rows} rows): it was changed; put "
                f"it back, or begin again with --restart"
            )
        self._rows, self._bytes = rows, nbytes
        self._cut()
        self._safe = {"rows": rows, "bytes": nbytes, "tail": self._tail(nbytes)}

    def close(self) -> None:
        """A file that was not there and got no rows is removed."""
        if self._file.closed:
            return
        if self._regular and self._touched:
            self._cut()
        self.sync()
        if self.path != _STANDARD_OUTPUT:
            self._file.close()
        if self._regular and not self._existed and not self._bytes:
            Path(self.path).unlink()

    def _cut(self) -> None:
        """Removes what follows the last whole row: all that was there before the first one, or a torn row."""
        if not self._regular:
            return
        self._touched = True
        try:
            if os.fstat(self._file.fileno()).st_size != self._bytes:
                self._file.truncate(self._bytes)
        except OSError as error:
            raise self._failure("cut", error) from error

    def _tail(self, nbytes: int) -> int:
        """A checksum of the last bytes before a position."""
        if not self._regular:
            return 0
        begin = max(0, nbytes - _TAIL_BYTES)
        try:
            return zlib.crc32(os.pread(self._file.fileno(), nbytes - begin, begin))
        except OSError as error:
            raise self._failure("read", error) from error

    def _failure(self, doing: str, error: OSError) -> StorageError:
        return StorageError(
            f"cannot {doing} {self.path}: {error.strerror}; {self._rows} whole rows are in it. Free some space, or see "
            f"that the disk is there, and go on"
        )


def _open(path: str, may_exist: bool) -> BinaryIO:
    if path == _STANDARD_OUTPUT:
        return sys.stdout.buffer
    if Path(path).is_file() and Path(path).stat().st_size and not may_exist:
        raise UsageError(f"{path} exists; name another file, or pass --overwrite")
    try:
        return open(path, "a+b" if Path(path).is_file() or not Path(path).exists() else "wb", buffering=0)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name a file in a folder you may write to") from error


def _write_all(file: BinaryIO, data: bytes) -> None:
    """An unbuffered file may take less than it is given; near a full disk it does."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    file.flush()
