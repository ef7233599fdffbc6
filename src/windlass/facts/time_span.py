"""One piece of work on one lane, forecast or measured: what a timeline is drawn from."""

from collections.abc import Callable
from dataclasses import dataclass

# Hears of a piece of work when it is over: lane, name, and when it began and ended (seconds of time.perf_counter).
OnSpan = Callable[[str, str, float, float], None]


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """`lane` is one of facts.lane.LANES; `name` says what is done ("read layer 3"). Seconds since the run began."""

    lane: str
    name: str
    start: float
    seconds: float

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.seconds
