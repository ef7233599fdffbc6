"""The file a batch writes: whole rows only, whatever happens while it is written."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from windlass.errors import StorageError, UsageError


class AnswerFile:
    """Appends rows. Opened before the model loads, so that a bad path costs nothing; `-` is standard output.

    A file that was there keeps its rows until the first new ones come; one that was not and got none is removed.
    `safe_rows` counts the whole rows written. Raises UsageError and StorageError.
    """

    def __init__(self, path: str, overwrite: bool = False) -> None:
        self.path = path
        self.safe_rows = 0
        self._safe_bytes = 0
        self._existed = path != "-" and Path(path).exists()
        self._file = _open(path, overwrite)
        self._regular = path != "-" and Path(path).is_file()

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Writes rows; each is in the file when this returns."""
        # Half a surrogate pair in a name is written as the escape it came as.
        lot = b"".join(json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n" for row in rows)
        try:
            if self._regular and not self._safe_bytes:
                self._file.truncate(0)
            _write_all(self._file, lot)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}; {self.safe_rows} whole rows are safe in it. "
                f"Free some space, or name a file on another disk, and ask the rest again"
            ) from error
        self.safe_rows += len(rows)
        self._safe_bytes += len(lot)

    def close(self) -> None:
        """Drops a torn last row; what is left is on the disk when this returns."""
        if self._regular and (self._safe_bytes or not self._existed):
            self._file.truncate(self._safe_bytes)
            os.fsync(self._file.fileno())
        if self.path != "-":
            self._file.close()
        if self._regular and not self._existed and not self._safe_bytes:
            Path(self.path).unlink()

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_apart(source: str, target: str) -> None:
    """Raises UsageError when a batch would write over its own questions."""
    both_exist = "-" not in (source, target) and Path(source).exists() and Path(target).exists()
    if both_exist and Path(source).samefile(target):
        raise UsageError(f"{target} holds the questions and would be overwritten; name another file for the answers")


def _open(path: str, overwrite: bool) -> BinaryIO:
    if path == "-":
        return sys.stdout.buffer
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder; name a file, as in {path.rstrip('/')}/answers.jsonl")
    if Path(path).is_file() and not overwrite:
        raise UsageError(f"{path} exists; name another file, or pass --overwrite")
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name a file in a folder you may write to") from error


def _write_all(file: BinaryIO, data: bytes) -> None:
    """An unbuffered file may take less than it is given; near a full disk it does."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    file.flush()
