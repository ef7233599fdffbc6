"""Draws a timeline: the lanes of the whole run, and of one pass from the middle of it; forecast above measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from windlass.errors import StorageError
from windlass.facts.lane import LANE_NAMES, LANES
from windlass.facts.time_span import TimeSpan
from windlass.planner.timeline import FORECAST, MEASURED, slice_name, steady_pass, within

# One hue a lane, told apart by people who see red and green alike (after Okabe and Ito).
_COLOURS = {"disk": "#0072B2", "upload": "#56B4E9", "compute": "#D55E00", "download": "#009E73", "host": "#CC79A7"}
_STRENGTH = {FORECAST: 0.45, MEASURED: 1.0}
_WIDTH = 12.0  # inches
_ROW, _MARGIN = 0.34, 1.15
# Work closer together than this share of the picture's width is drawn as one bar: nobody could see the gap.
_BLUR = 1 / 4000
# A bar at least this share of the width has room for its slice's name.
_ROOM = 0.035

Spans = Sequence[TimeSpan]


def draw_timeline(timeline: Mapping[str, Spans], title: str, file: Path) -> None:
    """Writes a PNG or an SVG, whichever `file` is called. Raises StorageError."""
    processes = [name for name in (FORECAST, MEASURED) if timeline.get(name)]
    lanes = [lane for lane in LANES if any(span.lane == lane for name in processes for span in timeline[name])]
    rows = [(lane, name) for lane in lanes for name in processes]
    panels = [("the whole run", {name: list(timeline[name]) for name in processes})]
    steady = {name: _one_pass(timeline[name]) for name in processes}
    if all(steady.values()):
        panels.append(("one pass from the middle of the run", steady))
    height = len(panels) * (_MARGIN + _ROW * max(1, len(rows))) + 0.5
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(title)
    for place, (name, spans) in enumerate(panels):
        _panel(figure.add_subplot(len(panels), 1, place + 1), name, spans, rows)
    patches = [Patch(facecolor="0.3", alpha=_STRENGTH[name], label=name) for name in processes]
    if patches:
        figure.legend(handles=patches, loc="outside lower right", ncols=len(patches), frameon=False)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise StorageError(
            f"the picture could not be written to {file}: {error.strerror}; name another file"
        ) from error


def _panel(axes: Axes, name: str, spans: Mapping[str, Spans], rows: Sequence[tuple[str, str]]) -> None:
    """One row a lane and process, the first on top; at its end, for how much of the time the lane is busy."""
    end = max((span.end for each in spans.values() for span in each), default=1.0)
    for place, (lane, process) in enumerate(rows):
        row = [span for span in spans[process] if span.lane == lane]
        _bars(axes, -place, row, lane, process, end)
        length = max((span.end for span in spans[process]), default=0.0)
        busy = sum(span.seconds for span in row) / length if length else 0.0
        axes.text(end * 1.01, -place, f"{busy:.0%}", va="center", fontsize=8)
    axes.set_yticks(
        [-place for place in range(len(rows))], [f"{LANE_NAMES[lane]}, {process}" for lane, process in rows]
    )
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.set_xlim(0, end)
    axes.set_xlabel("seconds")
    axes.set_title(f"{name}; right: share of the time in which a lane is busy", fontsize=9, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _bars(axes: Axes, place: int, row: Spans, lane: str, process: str, end: float) -> None:
    bars = _merged(row, end * _BLUR)
    axes.broken_barh(
        [(start, length) for start, length, _ in bars],
        (place - 0.4, 0.8),
        facecolors=_COLOURS[lane],
        alpha=_STRENGTH[process],
        edgecolor="white",
        linewidth=0.4 if len(bars) < 1 / (_BLUR * 10) else 0.0,
    )
    for start, length, name in bars:
        if name and length > end * _ROOM:
            axes.text(start + length / 2, place, name, ha="center", va="center", fontsize=7, clip_on=True)


def _merged(row: Spans, least: float) -> list[tuple[float, float, str]]:
    """`(start, seconds, name)` of each bar; what is too short to be seen runs together with what lies beside it."""
    bars: list[tuple[float, float, str]] = []
    for span in sorted(row, key=lambda each: each.start):
        if bars:
            start, length, _ = bars[-1]
            if span.start - (start + length) < least and (span.seconds < least or length < least):
                bars[-1] = (start, max(span.end, start + length) - start, "")
                continue
        bars.append((span.start, span.seconds, slice_name(span)))
    return bars


def _one_pass(spans: Spans) -> list[TimeSpan]:
    found = steady_pass(spans)
    return within(spans, *found) if found is not None else []
