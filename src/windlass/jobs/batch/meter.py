"""Counts rows and tokens of a job while it runs, and turns the engine's events into those of the job."""

import time
from collections.abc import Callable
from dataclasses import replace

from windlass.facts.job_progress import JobProgress
from windlass.facts.progress import Progress

ROWS = "rows"
"""The phase that a display is told."""
_PHASES_OF_THE_ENGINE = ("prefill", "decode")

OnProgress = Callable[[Progress], None]


class Meter:
    """Give `on_engine` to the engine; call `begin` when rows are about to be asked."""

    def __init__(self, on_progress: OnProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_progress, self._clock = on_progress, clock
        self._rows_before = self._rows = self._refused = self._tokens = 0
        self._total: int | None = None
        self._forecast: float | None = None
        self._start = clock()
        self._disk_rate = 0.0
        self._is_at_work = False

    def begin(self, rows: int, refused: int, total: int | None) -> None:
        """So many rows are finished, of so many."""
        self._rows_before = self._rows = rows
        self._refused, self._total, self._start = refused, total, self._clock()

    def expect(self, seconds: float | None) -> None:
        """The model is loaded; `seconds` are forecast for the rows that are left. The first loading is not counted."""
        if not self._is_at_work:
            self._is_at_work, self._start = True, self._clock()
            self._rows_before, self._tokens = self._rows, 0
        self._forecast = None if seconds is None else self._clock() - self._start + seconds

    def finished(self, answered: int, refused: int, tokens: int) -> None:
        """More rows are finished, with so many new tokens."""
        self._rows += answered + refused
        self._refused += refused
        self._tokens += tokens

    @property
    def progress(self) -> JobProgress:
        """Now."""
        seconds, done = self._clock() - self._start, self._rows - self._rows_before
        total = None if self._total is None else max(self._total, self._rows)
        rows_left = None if total is None else total - self._rows
        left = None
        if rows_left is not None and done:
            left = seconds / done * rows_left
        elif rows_left and self._forecast is not None:
            left = max(0.0, self._forecast - seconds)
        return JobProgress(
            rows=self._rows,
            refused=self._refused,
            total=total,
            tokens=self._tokens,
            seconds=seconds,
            left=left,
            forecast=self._forecast,
            disk_rate=self._disk_rate,
        )

    def on_engine(self, event: Progress) -> None:
        """Loading is told as it is; a pass as the rows of the job, with the speeds of the pass."""
        if event.phase not in _PHASES_OF_THE_ENGINE:
            self._on_progress(event)
            return
        self._disk_rate = event.disk_rate
        self._on_progress(self._of_rows(event))

    def _of_rows(self, event: Progress) -> Progress:
        now = self.progress
        return replace(
            event,
            phase=ROWS,
            done=now.rows,
            total=now.total or now.rows,
            seconds=now.seconds,
            seconds_left=now.left or 0.0,
            forecast=now.forecast or 0.0,
        )
