"""Pictures of costs for a report: what each way costs with its range, what matters most, and how it has moved."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from windlass.economics.assumption import Assumption
from windlass.economics.number_text import number_text
from windlass.economics.report import CostReport
from windlass.economics.sheet import Sheet
from windlass.economics.trajectory import TOKEN_UNIT, Point
from windlass.economics.uncertainty import tornado
from windlass.errors import StorageError

# After Okabe and Ito, told apart by people who see red and green alike.
LOWER, HIGHER, SERIES = "#0072B2", "#D55E00", ("#0072B2", "#D55E00", "#009E73")
BARS = 10
# Characters of a source that stand beside its bar; --explain has the whole.
SOURCE_WIDTH = 62
_WIDTH, _ROW, _MARGIN = 10.0, 0.4, 1.6


def draw_costs(report: CostReport, file: Path) -> None:
    """Writes a PNG, SVG or PDF, whichever `file` is called. Raises StorageError."""
    figure = _trajectory(report) if report.points else _tornadoes(report)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}; name another file with --plot") from error


def _tornadoes(report: CostReport) -> Figure:
    """One panel a sheet: the assumptions that move its first result, the one that moves it most on top."""
    counts = [min(BARS, max(1, len(tornado(sheet, sheet.results[0])))) for sheet in report.sheets]
    height = sum(_MARGIN + _ROW * count for count in counts) + 0.6
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(report.title)
    panels = figure.subplots(len(counts), 1, squeeze=False, height_ratios=[_MARGIN + _ROW * count for count in counts])
    for axes, sheet in zip(panels[:, 0], report.sheets, strict=True):
        _tornado(axes, sheet)
    return figure


def _tornado(axes: Axes, sheet: Sheet) -> None:
    result = sheet.results[0]
    middle, unit = sheet.value(result), sheet.unit
    swings = [swing for swing in tornado(sheet, result) if np.isfinite(swing.width)][:BARS]
    known = {each.name: each for each in sheet.assumptions}
    for place, swing in enumerate(swings):
        for end, colour in ((swing.at_low, LOWER), (swing.at_high, HIGHER)):
            axes.barh(-place, end - middle, left=middle, height=0.7, color=colour)
    names = [_label(known[swing.name]) for swing in swings]
    axes.set_yticks([-place for place in range(len(swings))], names, fontsize=7)
    axes.axvline(middle, color="0.2", linewidth=0.8)
    axes.set_xlabel(
        f"{result} ({unit[result]}); blue: assumption at its low value, orange: at its high one", fontsize=9
    )
    axes.xaxis.set_major_formatter(lambda value, _: number_text(value))
    axes.set_title(f"{sheet.title}: {number_text(middle)} {unit[result]}", fontsize=9.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _label(each: Assumption) -> str:
    """Its range, and beneath it where that comes from."""
    source = textwrap.shorten(f"{each.date}: {each.source}", SOURCE_WIDTH, placeholder=" ...")
    return f"{each.name}, {number_text(each.low)} to {number_text(each.high)} {each.unit}\n{source}"


def _trajectory(report: CostReport) -> Figure:
    """Tokens above, training below, on logarithmic scales."""
    figure = Figure(figsize=(_WIDTH, 8.5), layout="constrained")
    figure.suptitle(report.title)
    above, below = figure.subplots(2, 1)
    tokens = [point for point in report.points if point.unit == TOKEN_UNIT]
    training = [point for point in report.points if point.unit != TOKEN_UNIT]
    _lines(
        above,
        tokens,
        "USD a million tokens",
        "prices as their sellers listed them; one card: forecast, with its price and power",
    )
    _lines(
        below, training, "USD a training run", "computed from rents of their date; windlass cost trajectory --explain"
    )
    return figure


def _lines(axes: Axes, points: Sequence[Point], label: str, source: str) -> None:
    for series, colour in zip(dict.fromkeys(point.series for point in points), SERIES, strict=False):
        own = sorted((point for point in points if point.series == series), key=lambda point: point.year)
        axes.plot([p.year for p in own], [p.cost for p in own], "o-", color=colour, label=series)
        for place, point in enumerate(own):
            # Neighbours stand above and below, so that their names do not meet.
            axes.annotate(
                point.what,
                (point.year, point.cost),
                xytext=(5, -12 if place % 2 else 5),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_yscale("log")
    axes.set_xlabel(f"year ({source})", fontsize=9)
    axes.set_ylabel(label)
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis(lambda value, _: number_text(value))
    axes.tick_params(axis="y", which="both", labelsize=8)
    axes.grid(True, which="major", color="#e4e4e4")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.18, y=0.12)
    axes.legend(frameon=False, fontsize=9)
