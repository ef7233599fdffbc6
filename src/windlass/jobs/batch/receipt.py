"""What a job was done with, so that the same command given again needs no model to know that nothing has changed."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from windlass.errors import StorageError
from windlass.units import MIB


@dataclass(frozen=True, slots=True)
class Receipt:
    """`files` of the model as JobIdentity has them; `choices` are the flags that change an answer, as they were given.

    `rows` is how the input is read, and `content` what it holds. Who has an equal one gets the same answers.
    """

    files: Mapping[str, str]
    choices: Mapping[str, object]
    rows: str
    content: str

    def as_dict(self) -> dict[str, object]:
        """As the journal gives it back."""
        return asdict(self)


def content_of(path: str, read: bool = True) -> str:
    """By what the content of a file is known: its SHA-256, or without reading it its size and date.

    Raises StorageError.
    """
    try:
        with open(path, "rb") as file:
            if not read:
                found = os.fstat(file.fileno())
                return f"{found.st_size} bytes of {found.st_mtime_ns}"
            digest = hashlib.sha256()
            while piece := file.read(MIB):
                digest.update(piece)
            return digest.hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; make it readable, and start again") from error
