"""Small JSON files that are there whole or not at all, whenever the process is killed."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from windlass.errors import StorageError
from windlass.jobs.answers.whole_file import sync_folder


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """On the disk when it returns. Raises StorageError."""
    try:
        number, beside = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError:
            os.unlink(beside)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; free some space, or see to the folder") from error


def read_all(folder: Path) -> Iterator[dict[str, Any]]:
    """The object of every whole file in a folder. What is no object, or cannot be read, is passed over."""
    for path in sorted(folder.glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict):
            yield value


def made_folder(path: Path) -> Path:
    """Raises StorageError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {path}: {error.strerror}; name another with --jobs") from error
    return path
