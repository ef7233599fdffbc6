"""Files that survive: names that a power cut does not take back, and positions read from a journal."""

import os
from collections.abc import Mapping
from pathlib import Path

from windlass.errors import StorageError


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last; a file's own sync does not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def whole(position: Mapping[str, object], name: str) -> int:
    """A number of a position. Raises StorageError where it is none."""
    value = position.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise StorageError(f"the journal's position has {name} {value!r}, which is no count; start with --restart")
    return value
