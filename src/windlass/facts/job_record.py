"""A job of this machine: what was begun, and how it stands now."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from windlass.facts.job_progress import JobProgress
from windlass.units import format_rate, format_seconds


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is kept of a job when it begins. Paths are absolute; `started` is a time as ISO 8601 writes it.

    `command` is what to give again, in the folder `directory`.
    """

    id: str
    model: str
    input: str
    output: str
    journal: str
    lock: str
    command: str
    directory: str
    started: str

    @staticmethod
    def from_dict(values: object) -> "JobRecord | None":
        """What `asdict` wrote; None for anything else."""
        names = [field.name for field in fields(JobRecord)]
        if not isinstance(values, Mapping) or any(not isinstance(values.get(name), str) for name in names):
            return None
        known: dict[str, Any] = {name: values[name] for name in names}
        return JobRecord(**known)


@dataclass(frozen=True, slots=True)
class JobView:
    """`state` is running, paused, stopped, cancelled, done, or gone where its journal is; `pid` works on it."""

    record: JobRecord
    state: str
    pid: int | None
    progress: JobProgress

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        left = self.progress.left
        return asdict(self.record) | {
            "state": self.state,
            "pid": self.pid,
            "rows_done": self.progress.rows,
            "rows_refused": self.progress.refused,
            "rows_total": self.progress.total,
            "tokens": self.progress.tokens,
            "tokens_per_second": self.progress.rate,
            "seconds_left": left if left is None or math.isfinite(left) else None,
            "seconds_forecast": self.progress.forecast,
            "disk_rate": self.progress.disk_rate,
        }

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the list: id, state, rows, errors, speed, time left, output."""
        speed = f"{self.progress.rate:.1f} tok/s" if self.progress.tokens else ""
        left = self.left if self._works else ""
        return (self.record.id, self.state, self.rows, str(self.progress.refused), speed, left, self.record.output)

    @property
    def rows(self) -> str:
        """`12 of 200`."""
        total = self.progress.total
        return str(self.progress.rows) if total is None else f"{self.progress.rows} of {total}"

    @property
    def left(self) -> str:
        """Time left beside what was forecast; empty where neither is known."""
        left = "" if self.progress.left is None else f"{format_seconds(self.progress.left)} left"
        forecast = self.progress.forecast
        return left if forecast is None or not left else f"{left}, {format_seconds(forecast)} forecast"

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        pid = f", process {self.pid}" if self.pid else ""
        refused = f", {self.progress.refused} with an error" if self.progress.refused else ""
        lines = [
            f"job      {self.record.id}: {self.state}{pid}",
            f"model    {self.record.model}",
            f"input    {self.record.input}",
            f"output   {self.record.output}",
            f"rows     {self.rows}{refused}",
        ]
        if self.progress.tokens:
            disk = f", disk {format_rate(self.progress.disk_rate)}" if self.progress.disk_rate else ""
            lines.append(
                f"speed    {self.progress.tokens} tokens in {format_seconds(self.progress.seconds)}, "
                f"{self.progress.rate:.1f} tok/s{disk}"
            )
        if self._works and self.left:
            lines.append(f"time     {self.left}")
        lines += [f"started  {self.record.started}", f"command  {self.record.command}"]
        if self.state in ("stopped", "cancelled"):
            lines.append(f"         the same command, in {self.record.directory}, goes on with it")
        return lines

    @property
    def _works(self) -> bool:
        return self.state in ("running", "paused")
