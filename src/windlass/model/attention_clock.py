"""Counts what decode attention cost: its time, and the bytes of keys and values it had to read."""

import time


class AttentionClock:
    """Seconds and bytes so far. Calls that read nothing countable (prefill, given as 0 bytes) are not timed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.nbytes = 0

    def start(self) -> float:
        """The time now, to hand to `stop`."""
        return time.perf_counter()

    def stop(self, start: float, nbytes: int) -> None:
        """Ends one call that read `nbytes` of keys and values."""
        if nbytes:
            self.seconds += time.perf_counter() - start
            self.nbytes += nbytes
