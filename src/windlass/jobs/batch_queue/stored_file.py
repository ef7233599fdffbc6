"""What is known of a file that a server keeps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

BATCH, BATCH_OUTPUT = "batch", "batch_output"
"""What a file is for: rows to be answered, or the answers."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`name` is what whoever sent it called it; it is never used as a path. `created` in seconds since 1970."""

    id: str
    name: str
    purpose: str
    nbytes: int
    created: int

    def as_dict(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "StoredFile":
        """What as_dict gave."""
        return StoredFile(**values)
