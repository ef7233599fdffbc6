"""What a person or a machine sees while a run goes on; always on standard error, never in the results."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from windlass.cli.late import late
from windlass.cli.progress_text import disk_text, done_text, json_line, left_text, memory_text
from windlass.facts.progress import Progress

# Seconds between two lines of a log about one thing that takes long.
_LOG_EVERY = 10.0


class Display(Protocol):
    """Takes the engine's events, and lines for people."""

    def on_progress(self, event: Progress) -> None:
        """One step of long work is done."""

    def say(self, lines: Iterable[str]) -> None:
        """Says something once, for people."""

    def close(self) -> None:
        """Draws no more."""


class Silence:
    """`--quiet`."""

    def on_progress(self, event: Progress) -> None:
        """Nothing."""

    def say(self, lines: Iterable[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class StepLines:
    """Standard error is a file or a pipe: one JSON object a step, lines for people as they are."""

    def on_progress(self, event: Progress) -> None:
        """One line."""
        print(json_line(event), file=sys.stderr, flush=True)

    def say(self, lines: Iterable[str]) -> None:
        """As they are."""
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is drawn, nothing to stop."""


class LogLines:
    """Standard error is the log of something that runs for long: a few lines for people, however long it takes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._phase, self._told = clock, "", 0.0

    def on_progress(self, event: Progress) -> None:
        """A line when something begins, when it is done, and now and then between."""
        now = self._clock()
        if event.phase == self._phase and event.done < event.total and now - self._told < _LOG_EVERY:
            return
        self._phase, self._told = event.phase, now
        parts = (done_text(event), disk_text(event), memory_text(event), left_text(event))
        self.say([f"{event.phase:<8} {', '.join(part for part in parts if part)}"])

    def say(self, lines: Iterable[str]) -> None:
        """As they are."""
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is drawn, nothing to stop."""


class Screens:
    """One display after another in a session of many turns; bars of a turn are gone when it is over."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._now = _suited(quiet)
        self._said: set[str] = set()

    def begin(self) -> None:
        """A turn begins."""
        self._now, self._said = _suited(self._quiet, passing=True), set()

    def on_progress(self, event: Progress) -> None:
        """One step of long work is done."""
        self._now.on_progress(event)

    def say(self, lines: Iterable[str]) -> None:
        """Says something, for people."""
        self._now.say(lines)

    def say_once(self, line: str) -> None:
        """Says it unless it was said in this turn."""
        if line not in self._said:
            self._said.add(line)
            self._now.say([line])

    def close(self) -> None:
        """Draws no more until the next turn."""
        self._now.close()


class BeginAndLog:
    """Bars, on a terminal, while something long-lived begins; a log from then on, and elsewhere from the first line.

    A bar is drawn ten times a second and hides the cursor, for as long as it stands.
    """

    def __init__(self, quiet: bool) -> None:
        self._later: Display = Silence() if quiet else LogLines()
        self._now = _suited(quiet) if sys.stderr.isatty() else self._later

    def on_progress(self, event: Progress) -> None:
        """One step of long work is done."""
        self._now.on_progress(event)

    def say(self, lines: Iterable[str]) -> None:
        """Says something once, for people."""
        self._now.say(lines)

    def has_begun(self) -> None:
        """Leaves the bars as they stand. From any thread."""
        self._now.close()
        self._now = self._later

    def close(self) -> None:
        """Draws no more."""
        self._now.close()


@contextmanager
def display(quiet: bool) -> Iterator[Display]:
    """The display that suits standard error, closed at the end whatever happens."""
    screen = _suited(quiet)
    try:
        yield screen
    finally:
        screen.close()


def _suited(quiet: bool, passing: bool = False) -> Display:
    if quiet:
        return Silence()
    if not sys.stderr.isatty():
        return StepLines()
    bars: Display = late("cli.bars").on_standard_error(passing)
    return bars
