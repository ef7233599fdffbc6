"""What a disk refuses is tried again, after waits that grow, until it is done or somebody stops the job."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from windlass.errors import StorageError
from windlass.jobs.batch.ending import PAUSED, RUNNING
from windlass.jobs.batch.journal import Journal
from windlass.units import format_seconds

MOST = 60.0
"""Seconds."""
_SLICE = 0.2

Result = TypeVar("Result")


class Waits:
    """1, 2, 4 ... up to 60 seconds, and from 1 again after a success; all times `scale`, which tests set to 0."""

    def __init__(self, scale: float = 1.0) -> None:
        self._scale, self._next = scale, 1.0

    def next(self) -> float:
        """Seconds to wait now."""
        seconds, self._next = self._next, min(2 * self._next, MOST)
        return seconds * self._scale

    def reset(self) -> None:
        """Something went well."""
        self._next = 1.0


class Patience:
    """`warn` is told of each pause, which ends early when `stopped`; a journal that there is shows it, if it can.

    `scale` multiplies every wait; with `tries_again` False nothing is tried twice.
    """

    def __init__(
        self,
        journal: Journal | None,
        warn: Callable[[str], None],
        stopped: Callable[[], bool],
        scale: float = 1.0,
        tries_again: bool = True,
    ) -> None:
        self._journal, self._warn, self._stopped, self._scale = journal, warn, stopped, scale
        self._tries_again = tries_again

    def waits(self) -> Waits:
        """For one cause of trouble."""
        return Waits(self._scale)

    def persist(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, once it does not raise StorageError; raises it when stopped before."""
        waits = self.waits()
        while True:
            try:
                return work()
            except StorageError as error:
                if not self.pause(error, waits):
                    raise

    def pause(self, error: StorageError, waits: Waits) -> bool:
        """Waits for a better moment; whether to try again, which is not when it was stopped meanwhile."""
        if not self._tries_again:
            return False
        seconds = waits.next()
        self._warn(f"paused: {error}; trying again in {format_seconds(seconds)}")
        self._show(PAUSED)
        until = time.monotonic() + seconds
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))
        self._show(RUNNING)
        return not self._stopped()

    def _show(self, state: str) -> None:
        if self._journal is not None:
            with suppress(StorageError):
                self._journal.keep(state=state)
