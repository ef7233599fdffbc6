"""Progress on a terminal: a bar a phase, with speed, disk, memory and time left beside it."""

from collections.abc import Iterable
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from windlass.cli import progress_text
from windlass.facts import progress as facts

_BAR_WIDTH = 12


def on_standard_error(passing: bool) -> "Bars":
    """Bars where a person watches; `passing` ones are gone at the end."""
    return Bars(Console(stderr=True), passing)


class Bars:
    """Draws on standard error and leaves a finished phase standing, unless `passing`. Draws nothing before an event."""

    def __init__(self, console: Console, passing: bool = False) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[figures]}"),
            console=console,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=passing,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last: facts.Progress | None = None
        self._closed = False

    def on_progress(self, event: facts.Progress) -> None:
        """Moves the bar of the event's phase."""
        if self._closed:
            return
        if self._last is None:
            self._bars.start()
        elif event.phase != self._last.phase:
            # The step that ended a phase may have been too short to be told.
            self._draw(replace(self._last, done=self._last.total, seconds_left=0.0))
        self._draw(event)
        self._last = event

    def say(self, lines: Iterable[str]) -> None:
        """Lines above the bars."""
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the bars as they stand and the terminal to others."""
        self._bars.stop()
        self._closed = True

    def _draw(self, event: facts.Progress) -> None:
        if event.phase not in self._tasks:
            self._tasks[event.phase] = self._bars.add_task(event.phase, total=None, figures="")
        task = self._tasks[event.phase]
        self._bars.update(task, completed=event.done, total=event.total, figures=self._figures(event))

    def _figures(self, event: facts.Progress) -> str:
        """As many figures as the terminal is wide; what a person looks at most comes first."""
        room = self._console.width - _BAR_WIDTH - len("prefill") - 3
        texts = (
            progress_text.done_text(event),
            progress_text.speed_text(event),
            progress_text.left_text(event),
            progress_text.disk_text(event),
            progress_text.memory_text(event),
        )
        figures = ""
        for text in filter(None, texts):
            longer = f"{figures}  {text}" if figures else text
            if len(longer) > room:
                break
            figures = longer
        return figures
