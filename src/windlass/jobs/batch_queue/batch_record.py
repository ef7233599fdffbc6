"""A batch as a server keeps it: what was asked for, and how far it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Status = Literal["validating", "in_progress", "finalizing", "completed", "cancelling", "cancelled", "failed"]
VALIDATING: Final = "validating"
IN_PROGRESS: Final = "in_progress"
FINALIZING: Final = "finalizing"
COMPLETED: Final = "completed"
CANCELLING: Final = "cancelling"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
OPEN = frozenset({VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING})
"""The states, in OpenAI's words; in those of OPEN there is something to do still."""


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """`times` holds when it came into each state, in seconds since 1970. `error` says why it failed.

    `completed` and `failed` count rows; of `total` 0 means that nobody has counted yet.
    """

    id: str
    endpoint: str
    input_file_id: str
    created: int
    completion_window: str = "24h"
    status: Status = VALIDATING
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    error: str | None = None
    times: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to do still."""
        return self.status in OPEN

    def as_dict(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "BatchRecord":
        """What as_dict gave."""
        return BatchRecord(**values)
