"""Where the lines of a job go, and how far they are known to be good."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from windlass.errors import StorageError

Position = Mapping[str, object]
TAIL = 4096
"""Bytes before a position by which it is known again."""


class Output(Protocol):
    """Takes rows in the order in which they are appended; each method raises StorageError."""

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Takes all of the rows or, where it raises, none."""

    def sync(self) -> None:
        """What is written is on the disk, and `position` counts it."""

    def position(self) -> dict[str, object]:
        """How far it is known good, as JSON can hold it: `rows` of them, the rest is for `rewind` alone."""

    def rewind(self, position: Position) -> None:
        """Drops what came behind a position. Raises StorageError where something else is there."""

    def close(self) -> None:
        """Writes what waits, and syncs."""


class LinesOutput:
    """A file of JSON lines. It is made when the first row comes; what stood there goes then, not before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._rows = self._bytes = 0
        self._safe: dict[str, object] = {"rows": 0, "bytes": 0, "tail": ""}

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Writes behind what is good; what a failed writing left there is cut off first."""
        lot = b"".join(json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n" for row in rows)
        try:
            if self._file < 0:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if os.fstat(self._file).st_size != self._bytes:
                os.ftruncate(self._file, self._bytes)
            rest, at = memoryview(lot), self._bytes
            while rest:
                done = os.pwrite(self._file, rest, at)
                rest, at = rest[done:], at + done
        except OSError as error:
            raise self._refusal("written", error) from error
        self._rows, self._bytes = self._rows + len(rows), self._bytes + len(lot)

    def sync(self) -> None:
        """On the disk, and under its name: a file that somebody took away would be lost with the job."""
        try:
            if self._file < 0:
                return
            os.fsync(self._file)
            here, there = os.fstat(self._file), os.stat(self.path)
            tail = _tail(self._file, self._bytes)
        except OSError as error:
            raise self._refusal("written", error) from error
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise StorageError(f"{self.path} was replaced by another file")
        self._safe = {"rows": self._rows, "bytes": self._bytes, "tail": tail}

    def position(self) -> dict[str, object]:
        """Rows and bytes, and a hash of the last of these."""
        return dict(self._safe)

    def rewind(self, position: Position) -> None:
        """Raises StorageError for a file that is shorter than it was, or ends otherwise there."""
        self._let_go()
        rows, good = position["rows"], position["bytes"]
        assert isinstance(rows, int) and isinstance(good, int)
        if good:
            self._go_back(good, position["tail"])
        self._rows, self._bytes, self._safe = rows, good, dict(position)

    def close(self) -> None:
        """Lets go of the file."""
        self.sync()
        self._let_go()

    def _go_back(self, good: int, tail: object) -> None:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            size = os.fstat(self._file).st_size
            same = size >= good and _tail(self._file, good) == tail
            if same:
                os.ftruncate(self._file, good)
        except OSError as error:
            raise self._refusal("read", error) from error
        if size < good:
            raise StorageError(f"{self.path} has {size} bytes, {good} were written")
        if not same:
            raise StorageError(f"{self.path} was changed since it was written")

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _refusal(self, done: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path} cannot be {done}: {error.strerror}; free some space there, or make it writable"
        )


def _tail(file: int, end: int) -> str:
    start = max(0, end - TAIL)
    return hashlib.sha256(os.pread(file, end - start, start)).hexdigest()
