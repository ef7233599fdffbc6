"""The file a batch reads: one row a line, bad ones included."""

import sys
from pathlib import Path

from windlass.errors import StorageError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow, parse_rows

Row = BatchRow | BadRow


def read_rows(path: str) -> list[Row]:
    """All rows of a file, or of standard input for `-`. Raises UsageError when there is none, StorageError."""
    if path != "-" and Path(path).is_dir():
        raise UsageError(f"{path} is a folder; name a file with one JSON object a line, as in {Path(path, 'in.jsonl')}")
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; name a file with one JSON object a line") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error
    rows = parse_rows(data.split(b"\n"))
    if not rows:
        raise UsageError(f'{path} holds no rows; write one JSON object a line, as {{"prompt": "Once upon a time"}}')
    return rows
