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
    """Takes lines. All methods raise StorageError, after which `rewind` finds the way on."""

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Adds rows. They are whole, or, where it raises, cut off again by what follows."""

    def sync(self) -> None:
        """What was added is on the disk."""

    def position(self) -> Position:
        """How far it has come, in values that JSON can hold."""

    def rewind(self, position: Position | None) -> None:
        """Drops what came behind a position; None is the beginning. Raises StorageError where that is not there."""

    def close(self) -> None:
        """Lets go of it."""


class LinesOutput:
    """A file of JSON lines. It is made when the first row comes; what stood there goes then, not before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._bytes = 0

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
        self._bytes += len(lot)

    def sync(self) -> None:
        """On the disk, and under its name: a file that somebody took away would be lost with the job."""
        try:
            if self._file < 0:
                return
            os.fsync(self._file)
            here, there = os.fstat(self._file), os.stat(self.path)
        except OSError as error:
            raise self._refusal("written", error) from error
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise StorageError(f"{self.path} was replaced by another file")

    def position(self) -> Position:
        """Bytes, and a hash of the last of them."""
        try:
            return {"bytes": self._bytes, "tail": _tail(self._file, self._bytes) if self._file >= 0 else ""}
        except OSError as error:
            raise self._refusal("read", error) from error

    def rewind(self, position: Position | None) -> None:
        """Raises StorageError for a file that is shorter than it was, or ends otherwise there."""
        self.close()
        if position is None or not position["bytes"]:
            self._bytes = 0
            return
        good = position["bytes"]
        assert isinstance(good, int)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            size = os.fstat(self._file).st_size
            same = size >= good and _tail(self._file, good) == position["tail"]
            if same:
                os.ftruncate(self._file, good)
        except OSError as error:
            raise self._refusal("read", error) from error
        if size < good:
            raise StorageError(f"{self.path} has {size} bytes, {good} were written")
        if not same:
            raise StorageError(f"{self.path} was changed since it was written")
        self._bytes = good

    def close(self) -> None:
        """Lets go of the file."""
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
