"""A file of rows as bytes: opened with errors a person can act on, and read by lines of bounded length."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from windlass.errors import StorageError, UsageError
from windlass.units import MIB

MAX_ROW_BYTES = 16 * MIB  # a million tokens in one row, with room for JSON's escapes
COUNTED_BYTES = 64 * MIB  # a file up to here is counted by reading it: a fraction of a second
STANDARD_INPUT = "-"


@contextmanager
def opened_rows(path: str) -> Iterator[BinaryIO]:
    """The bytes of a file, or of standard input for `-`, which stays open. Raises UsageError and StorageError.

    What goes wrong while it is read inside the block becomes a StorageError too.
    """
    if path != STANDARD_INPUT and Path(path).is_dir():
        raise UsageError(f"{path} is a folder; name a file of rows in it (.jsonl, .csv, .tsv or .parquet)")
    try:
        if path == STANDARD_INPUT:
            yield sys.stdin.buffer
            return
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; name a file of rows (.jsonl, .csv, .tsv or .parquet)") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error


def check_readable(path: str) -> None:
    """Raises what `opened_rows` does, before anything is read; a pipe is left as it is."""
    if path != STANDARD_INPUT and (is_regular(path) or Path(path).is_dir() or not Path(path).exists()):
        with opened_rows(path):
            pass


def is_regular(path: str) -> bool:
    """Whether the bytes lie somewhere and can be read again; a pipe gives them once."""
    return path != STANDARD_INPUT and Path(path).is_file()


def cheap_to_count(path: str) -> bool:
    """Whether a file of lines is so short that its rows may be counted by reading it."""
    try:
        status = os.stat(path) if path != STANDARD_INPUT else None
    except OSError:
        return False
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size <= COUNTED_BYTES


def bounded_lines(file: BinaryIO, limit: int) -> Iterator[bytes | int]:
    """Each line with its end. Of one longer than `limit` bytes, which is read past, the bytes it has."""
    while line := file.readline(limit + 1):
        if len(line) <= limit or line.endswith(b"\n"):
            yield line
            continue
        length = len(line)
        while not line.endswith(b"\n") and (line := file.readline(limit)):
            length += len(line)
        yield length
