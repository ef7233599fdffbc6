"""What a person or a machine sees while a machine is measured, on standard error."""

import json
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from windlass.settings import stderr_is_terminal


class Measuring:
    """A bar on a terminal, gone when it is over; one JSON line a step otherwise. Shows nothing before a first step."""

    def __init__(self) -> None:
        self._bars = Progress(
            BarColumn(bar_width=24), TextColumn("{task.description}"), console=Console(stderr=True), transient=True
        )
        self._task = self._bars.add_task("", total=None)
        self._drawn = stderr_is_terminal()
        self._begun = False

    def on_progress(self, step: str, done: int, total: int) -> None:
        """`step` begins after `done` of `total`."""
        if not self._drawn:
            line = {"event": "progress", "phase": "measure", "step": step, "done": done, "total": total}
            print(json.dumps(line), file=sys.stderr, flush=True)
            return
        if not self._begun:
            self._bars.start()
            self._begun = True
        self._bars.update(self._task, completed=done, total=total, description=step)

    def __enter__(self) -> "Measuring":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun:
            self._bars.stop()
