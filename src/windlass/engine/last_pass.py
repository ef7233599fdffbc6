"""The last pass as its lanes ran, for whoever watches: a trace that forgets all before it."""

from dataclasses import dataclass

from windlass.engine.trace import Trace
from windlass.facts.lane import LANES
from windlass.facts.time_span import TimeSpan
from windlass.planner.timeline import in_turn, within

# Of one pass; what comes beyond is not shown.
LIMIT = 2000


@dataclass(frozen=True, slots=True)
class PassSpans:
    """The pass `number`, from 1, took `seconds`; its spans count from where it began, lane by lane."""

    number: int
    seconds: float
    spans: tuple[TimeSpan, ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """A pass from `start` to `end`, on the clock of the spans that were told meanwhile."""

    number: int
    start: float
    end: float
    spans: tuple[TimeSpan, ...]


class LastPass(Trace):
    """Keeps the spans of one pass, and those that come before the next one ends. Any thread may ask for them."""

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__(limit)
        self._coming: list[TimeSpan] = []
        self._start, self._number = 0.0, 0
        self._told: _Told | None = None

    def add(self, lane: str, name: str, start: float, end: float) -> None:
        with self._lock:
            if len(self._coming) < self.limit:
                self._coming.append(TimeSpan(lane, name, start, end - start))
            else:
                self.left_out += 1

    def begin(self, now: float) -> None:
        self._start = now

    def end_pass(self, now: float) -> None:
        self._number += 1
        with self._lock:
            # What was read ahead while nothing ran began before the pass: `latest` cuts it off.
            self._told = _Told(self._number, self._start, now, tuple(self._coming))
            self._coming = []

    def latest(self) -> PassSpans | None:
        """The last pass that is over, None before the first."""
        told = self._told
        if told is None:
            return None
        spans = within(told.spans, told.start, told.end)
        ordered = [span for lane in LANES for span in in_turn(each for each in spans if each.lane == lane)]
        return PassSpans(told.number, told.end - told.start, tuple(ordered))
