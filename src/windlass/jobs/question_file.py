"""The file a batch reads: one row a line, bad ones included."""

import sys
from collections.abc import Iterator
from pathlib import Path

from windlass.errors import StorageError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow, parse_row, parse_rows

Row = BatchRow | BadRow

_BOM = b"\xef\xbb\xbf"
# Up to so many bytes a file is read once more to count its rows.
COUNTED = 256 << 20


class QuestionFile:
    """JSON lines on disk, read as they are wanted. Every reading begins at the first row and numbers rows alike."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> Iterator[Row]:
        """Every line that is not blank. Raises UsageError where there is no such file, StorageError."""
        try:
            with open(self.path, "rb") as file:
                for number, raw in enumerate(file, 1):
                    raw = raw.removeprefix(_BOM) if number == 1 else raw
                    if raw.strip():
                        yield parse_row(number, raw.removesuffix(b"\n"))
        except OSError as error:
            raise _refusal(str(self.path), error) from error

    def count(self) -> int | None:
        """About how many rows there are; None where counting would take long. Raises as rows does."""
        try:
            if self.path.stat().st_size > COUNTED:
                return None
            with open(self.path, "rb") as file:
                return sum(1 for line in file if line.strip())
        except OSError as error:
            raise _refusal(str(self.path), error) from error

    def describe(self) -> str:
        """For messages."""
        return str(self.path)


def read_rows(path: str) -> list[Row]:
    """All rows of a file, or of standard input for `-`. Raises UsageError when there is none, StorageError."""
    refuse_folder(path)
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise _refusal(path, error) from error
    rows = parse_rows(data.split(b"\n"))
    if not rows:
        raise no_rows(path)
    return rows


def refuse_folder(path: str) -> None:
    """Raises UsageError for a folder."""
    if path != "-" and Path(path).is_dir():
        raise UsageError(f"{path} is a folder; name a file with one JSON object a line, as in {Path(path, 'in.jsonl')}")


def no_rows(path: str) -> UsageError:
    """What is wrong with an empty file."""
    return UsageError(f'{path} holds no rows; write one JSON object a line, as {{"prompt": "Once upon a time"}}')


def _refusal(path: str, error: OSError) -> UsageError | StorageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"there is no file {path}; name a file with one JSON object a line")
    return StorageError(f"cannot read {path}: {error.strerror}; name a file that you may read")
