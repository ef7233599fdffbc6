"""The promise that bytes asked of a disk will be in place: what a reader gives and an engine waits for."""

import threading
from collections.abc import Callable


class ReaderClosed(Exception):
    """The reader was closed before the request was served; internal, it ends a loader and never reaches a user."""


class Ticket:
    """One request of several chunks. `wait` returns when every byte is in place, or raises what went wrong."""

    def __init__(self, chunks: int, on_done: "Callable[[Ticket], None] | None" = None) -> None:
        self.error: Exception | None = None
        # When the first of its reads began, where someone wants to know.
        self.began: float | None = None
        self._left = chunks
        self._on_done = on_done
        self._lock = threading.Lock()
        self._served = threading.Event()

    @property
    def done(self) -> bool:
        """Whether `wait` returns at once."""
        return self._served.is_set()

    def wait(self) -> None:
        """Waits until the request is served. Raises StorageError if a read failed, ReaderClosed if it was dropped."""
        self._served.wait()
        if self.error is not None:
            raise self.error

    def begin(self, now: float) -> None:
        """A read of it begins; the first counts."""
        with self._lock:
            self.began = now if self.began is None else self.began

    def finish(self, error: Exception | None = None) -> None:
        """Counts one chunk as over; the first error is kept, and the last chunk ends the wait."""
        with self._lock:
            self._left -= 1
            self.error = self.error or error
            last = self._left == 0
        if last:
            self._served.set()
            if self._on_done is not None:
                self._on_done(self)
