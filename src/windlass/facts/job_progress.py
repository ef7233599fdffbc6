"""How far a job has come: kept in its journal, and shown by whoever looks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class JobProgress:
    """`rows` are finished, `refused` of them without an answer; `total` is None where the input was not counted.

    `tokens` were generated in `seconds` by the process that is or was at work last; `forecast` is what was forecast for
    the rows it found to do (seconds, None where nobody could), `left` the seconds that are left by its pace.
    """

    rows: int = 0
    refused: int = 0
    total: int | None = None
    tokens: int = 0
    seconds: float = 0.0
    left: float | None = None
    forecast: float | None = None
    disk_rate: float = 0.0

    @property
    def rate(self) -> float:
        """Generated tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, object]:
        """As the journal keeps it."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "JobProgress":
        """What as_dict gave."""
        return JobProgress(**values)
