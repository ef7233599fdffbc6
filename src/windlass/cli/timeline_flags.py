"""The flags that record what every lane does: a file for trace viewers, and a picture."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from windlass.cli.display import Display
from windlass.cli.late import late
from windlass.errors import UsageError
from windlass.jobs.timeline_file import add_to_timeline, check_timeline
from windlass.planner.timeline import MEASURED

_PANEL = "Timeline"
_PICTURES = (".png", ".svg")


@dataclass(frozen=True, slots=True)
class TimelineFlags:
    """`--timeline` keeps a forecast that its file holds already; `--plot` then draws both."""

    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what each lane did when, for Perfetto or chrome://tracing; a forecast in FILE stays beside it.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw it too, as .png or .svg.", rich_help_panel=_PANEL),
    ] = None

    def check(self) -> None:
        """Refuses, before anything is loaded, what could not be written afterwards. Raises UsageError."""
        if self.timeline is not None:
            check_timeline(self.timeline)
        if self.plot is None:
            return
        if self.plot.suffix.lower() not in _PICTURES:
            raise UsageError(f"--plot {self.plot} is neither .png nor .svg; name the file so, as in pass.png")
        if not self.plot.parent.is_dir():
            raise UsageError(f"there is no folder {self.plot.parent} for the picture; make it, or name another file")
        if importlib.util.find_spec("matplotlib") is None:
            raise UsageError('--plot needs matplotlib, which is not installed; pip install "windlass[plot]"')

    @contextmanager
    def recording(self, model: str, screen: Display) -> Iterator[Any]:
        """Gives the trace to open the model with, or None; when the model is closed again, everything is written.

        Enter it before the model is opened: its memory is free by the time that files are made. Raises UsageError.
        """
        self.check()
        if self.timeline is None and self.plot is None:
            yield None
            return
        trace = late("engine.trace").Trace()
        try:
            yield trace
        finally:
            self.write(model, trace, screen)

    def write(self, model: str, trace: Any, screen: Display) -> None:
        """What was recorded until now, also where the run was interrupted. Raises StorageError."""
        spans, left_out = trace.spans(), trace.left_out
        if not spans:
            return
        timeline = {MEASURED: spans}
        if self.timeline is not None:
            timeline = add_to_timeline(self.timeline, MEASURED, spans)
            more = f"; it was full after {len(spans)} and left out {left_out}" if left_out else ""
            screen.say([f"timeline {len(spans)} spans in {self.timeline}, to open in ui.perfetto.dev{more}"])
        if self.plot is not None:
            late("jobs.timeline_picture").draw_timeline(timeline, model, self.plot)
            screen.say([f"picture  {self.plot}"])
