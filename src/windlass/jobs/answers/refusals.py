"""An output without one answer: what a batch wrote whose rows could not be asked, and that may be written again."""

import json
from pathlib import Path

# An error row is short; what is longer is somebody's own.
_MOST_BYTES = 1 << 16


def only_refusals(path: Path) -> bool:
    """Whether every line of a file is an error row of a batch, and there is one at least."""
    if not path.is_file():
        return False
    found = False
    try:
        with path.open("rb") as file:
            while line := file.readline(_MOST_BYTES):
                if not _is_refusal(line):
                    return False
                found = True
    except OSError:
        return False
    return found


def _is_refusal(line: bytes) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    if not isinstance(row, dict) or row.keys() != {"id", "custom_id", "response", "error"}:
        return False
    return row["response"] is None and isinstance(row["error"], dict) and str(row["id"]).startswith("batch_req_")
