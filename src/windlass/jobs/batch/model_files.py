"""By what a model's files are known again when a job goes on."""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from windlass.errors import ModelError, StorageError, UsageError
from windlass.model.hub import SMALL_FILES, local_model

_WEIGHTS = ("*.safetensors", "*.gguf")


def model_files(folder: Path) -> Mapping[str, str]:
    """File -> what it holds, for a folder or a GGUF file: small files by their hash, weights by size and date.

    Raises StorageError for one that cannot be read.
    """
    try:
        files = [folder] if folder.is_file() else sorted(folder.iterdir())
        return {file.name: told for file in files if (told := _told(file))}
    except OSError as error:
        raise StorageError(f"cannot read {error.filename}: {error.strerror}; make the model readable") from error


def files_of(model: str, revision: str | None) -> Mapping[str, str] | None:
    """Those of a model on this machine; None for one of the hub, which has to be asked, or that cannot be read."""
    try:
        place = local_model(model, revision)
        return model_files(place) if place is not None else None
    except (ModelError, StorageError, UsageError):
        return None


def _told(file: Path) -> str:
    """Empty for a file that no answer depends on."""
    if any(fnmatchcase(file.name, pattern) for pattern in _WEIGHTS):
        found = file.stat()
        return f"{found.st_size} bytes of {found.st_mtime_ns}"
    if any(fnmatchcase(file.name, pattern) for pattern in SMALL_FILES) and file.is_file():
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return ""
