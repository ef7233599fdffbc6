"""Records what every lane does when, if someone asks for it; attached to nothing it costs nothing.

The lanes tell of each piece of work when it is over. A trace is small: a run of hours fills it, and then it stops and
counts what it left out. Its time is that from the first pass to the end of the last call; what is read ahead of the
one, or behind the other, is cut off.
"""

import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from windlass.facts.lane import LANES
from windlass.facts.time_span import TimeSpan
from windlass.planner.timeline import in_turn, within

# Spans at most: about 5 MB while the model runs.
LIMIT = 200_000

Timed = Callable[[str], AbstractContextManager[None]]
Paused = Callable[[], AbstractContextManager[None]]
# What a span is called that goes on after a wait.
WENT_ON = " (went on)"


class Trace:
    """Told of spans by several threads. `left_out` counts those that came when it was full."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.left_out = limit, 0
        self._lock = threading.Lock()
        self._zero: float | None = None
        self._end = 0.0
        self._works: dict[tuple[str, str], int] = {}
        self._kinds, self._starts, self._ends = array("i"), array("d"), array("d")

    def add(self, lane: str, name: str, start: float, end: float) -> None:
        """See OnSpan."""
        with self._lock:
            if len(self._kinds) >= self.limit:
                self.left_out += 1
                return
            self._kinds.append(self._works.setdefault((lane, name), len(self._works)))
            self._starts.append(start)
            self._ends.append(end)

    def begin(self, now: float) -> None:
        """A pass begins. The first sets the zero of time."""
        if self._zero is None:
            self._zero = self._end = now

    def end_pass(self, now: float) -> None:
        """The pass that began last is over."""

    def end(self, now: float) -> None:
        """A call has ended, or was left; of what comes behind the last, nothing is shown."""
        self._end = now

    def spans(self) -> list[TimeSpan]:
        """What was recorded, lane by lane, without overlaps within a lane; nothing before the first pass."""
        zero = self._zero
        if zero is None:
            return []
        with self._lock:
            works = list(self._works)
            told = zip(self._kinds, self._starts, self._ends, strict=True)
            spans = [TimeSpan(*works[kind], start - zero, end - start) for kind, start, end in told]
        spans = within(spans, 0.0, self._end - zero)
        return [span for lane in LANES for span in in_turn(each for each in spans if each.lane == lane)]


class ComputeSpans:
    """Spans of the compute lane. `timed` measures one; a micro-batch that waits inside its own is paused meanwhile."""

    def __init__(self, timed: Timed) -> None:
        self._timed = timed
        self._now = _Now()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """What is computed within is one span, or several where it waits."""
        now = self._now
        now.name = name
        now.open.enter_context(self._timed(name))
        try:
            yield
        finally:
            now.open.close()
            now.name = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The calling thread waits within."""
        now = self._now
        if now.name is None:
            yield
            return
        now.open.close()
        try:
            yield
        finally:
            now.open.enter_context(self._timed(f"{now.name}{WENT_ON}"))


class _Now(threading.local):
    """The span that the calling thread is in."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.open = ExitStack()
