"""Pictures of costs for a report: what each way costs with its range, what matters most, and how it has moved."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from windlass.economics.assumption import Assumption
from windlass.economics.number_text import number_text
from windlass.economics.report import CostReport
from windlass.economics.sheet import Sheet
from windlass.economics.trajectory import TOKEN_UNIT, Point
from windlass.economics.uncertainty import Range, ranges, tornado
from windlass.errors import StorageError

# After Okabe and Ito, told apart by people who see red and green alike.
LOWER, HIGHER, SERIES = "#0072B2", "#D55E00", ("#0072B2", "#D55E00", "#009E73")
BARS = 10
# A source stands beside its bar on two lines of so many characters; the few that are longer are whole in --explain.
SOURCE_WIDTH, SOURCE_LINES = 62, 2
FOOT_WIDTH, TITLE_WIDTH = 195, 75
# Years within which two points of a line are neighbours.
CLOSE = 0.45
_WIDTH, _ROW, _MARGIN = 10.0, 0.5, 1.6


def draw_costs(report: CostReport, file: Path) -> None:
    """Writes a PNG, SVG or PDF, whichever `file` is called. Raises StorageError."""
    figure = _trajectory(report) if report.points else _tornadoes(report)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}; name another file with --plot") from error


def _tornadoes(report: CostReport) -> Figure:
    """What each way costs where there are several, then a panel a sheet: the assumptions that move its first result,
    the one that moves it most on top."""
    found = ways(report)
    counts = [len(found)] if found else []
    counts += [min(BARS, max(1, len(tornado(sheet, sheet.results[0])))) for sheet in report.sheets]
    heights = [_MARGIN + _ROW * count for count in counts]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(textwrap.fill(report.title, TITLE_WIDTH))
    panels = list(figure.subplots(len(counts), 1, squeeze=False, height_ratios=heights)[:, 0])
    if found:
        _draw_ways(panels.pop(0), found, report.sheets[0].unit[report.sheets[0].results[0]])
    for axes, sheet in zip(panels, report.sheets, strict=True):
        _tornado(axes, sheet)
    return figure


@dataclass(frozen=True, slots=True)
class Way:
    """A cost to compare with others: what it is, its value, and where nine of ten draws fall."""

    name: str
    value: float
    spread: Range


def ways(report: CostReport) -> list[Way]:
    """The first result of every sheet, or of a single sheet all that is in the unit of its first; else nothing."""
    first = report.sheets[0]
    unit = first.unit[first.results[0]]
    if len(report.sheets) > 1:
        found = [
            Way(f"{sheet.title}: {sheet.results[0]}", sheet.value(sheet.results[0]), ranges(sheet)[sheet.results[0]])
            for sheet in report.sheets
            if sheet.unit[sheet.results[0]] == unit
        ]
    else:
        meanings, spreads = {formula.name: formula.meaning for formula in first.formulas}, ranges(first)
        found = [
            Way(f"{name}: {meanings.get(name, 'set')}", first.value(name), spreads[name])
            for name in first.results
            if first.unit[name] == unit
        ]
    return found if len(found) > 1 else []


def _draw_ways(axes: Axes, found: Sequence[Way], unit: str) -> None:
    """A point and its range a way, on a logarithmic scale where they lie far apart."""
    for place, way in enumerate(found):
        axes.plot(
            [way.spread.low, way.spread.high],
            [-place, -place],
            color=LOWER,
            linewidth=5,
            alpha=0.35,
            solid_capstyle="butt",
        )
        axes.plot([way.value], [-place], "o", color=LOWER)
        axes.annotate(
            number_text(way.value), (way.value, -place), xytext=(0, 7), textcoords="offset points", fontsize=8,
            ha="center",
        )  # fmt: skip
    names = [textwrap.fill(way.name, SOURCE_WIDTH) for way in found]
    axes.set_yticks([-place for place in range(len(found))], names, fontsize=7)
    axes.set_ylim(-len(found) + 0.4, 0.7)
    if min(way.spread.low for way in found) > 0 and max(w.value for w in found) > 5 * min(w.value for w in found):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{unit}; bar: where nine of ten draws of the assumptions fall", fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: number_text(value))
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title("what each comes to", fontsize=9.5, loc="left")
    axes.grid(True, axis="x", which="major", color="#e4e4e4")
    axes.spines[["top", "right"]].set_visible(False)


def _tornado(axes: Axes, sheet: Sheet) -> None:
    result = sheet.results[0]
    middle, unit = sheet.value(result), sheet.unit
    swings = [swing for swing in tornado(sheet, result) if np.isfinite(swing.width)][:BARS]
    known = {each.name: each for each in sheet.assumptions}
    for place, swing in enumerate(swings):
        ends = ((swing.at_low, LOWER), (swing.at_high, HIGHER))
        # Both may lie on one side: the shorter bar comes last, so that it is seen.
        for end, colour in sorted(ends, key=lambda each: -abs(each[0] - middle)):
            axes.barh(-place, end - middle, left=middle, height=0.7, color=colour)
    names = [_label(known[swing.name]) for swing in swings]
    axes.set_yticks([-place for place in range(len(swings))], names, fontsize=7)
    axes.axvline(middle, color="0.2", linewidth=0.8)
    axes.set_xlabel(
        f"{result} ({unit[result]}); blue: assumption at its low value, orange: at its high one", fontsize=9
    )
    axes.xaxis.set_major_formatter(lambda value, _: number_text(value))
    title = f"{sheet.title}: {number_text(middle)} {unit[result]}"
    axes.set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=9.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _label(each: Assumption) -> str:
    """Its range, and beneath it where that comes from."""
    source = textwrap.wrap(f"{each.date}: {each.source}", SOURCE_WIDTH, max_lines=SOURCE_LINES, placeholder=" ...")
    return "\n".join((f"{each.name}, {number_text(each.low)} to {number_text(each.high)} {each.unit}", *source))


def _trajectory(report: CostReport) -> Figure:
    """Tokens above, training below, on logarithmic scales."""
    figure = Figure(figsize=(_WIDTH, 9.5), layout="constrained")
    figure.suptitle(report.title)
    above, below = figure.subplots(2, 1, sharex=True)
    tokens = [point for point in report.points if point.unit == TOKEN_UNIT]
    training = [point for point in report.points if point.unit != TOKEN_UNIT]
    _lines(above, tokens, "USD a million tokens")
    _lines(below, training, "USD a training run")
    below.set_xlabel("year; bar: where nine of ten draws of the assumptions fall", fontsize=9)
    figure.supxlabel(_sources(report), fontsize=6.5, x=0.01, ha="left")
    return figure


def _sources(report: CostReport) -> str:
    """Where the prices come from, of tokens and of the hours of chips, each once."""
    told = [f"{point.what}: {point.source}" for point in report.points if point.unit == TOKEN_UNIT]
    told += [
        f"an hour of {sheet.title.rpartition(', ')[2]}: {each.date}, {each.source}"
        for sheet in report.sheets
        for each in sheet.assumptions
        if each.name == "chip_per_hour"
    ]
    return "\n".join(textwrap.wrap(f"Sources. {'; '.join(dict.fromkeys(told))}", FOOT_WIDTH))


def _lines(axes: Axes, points: Sequence[Point], label: str) -> None:
    for series, colour in zip(dict.fromkeys(point.series for point in points), SERIES, strict=False):
        own = sorted((point for point in points if point.series == series), key=lambda point: point.year)
        axes.plot([p.year for p in own], [p.cost for p in own], "o-", color=colour, label=series)
        for before, point in zip((None, *own), own, strict=False):
            if point.low is not None and point.high is not None:
                axes.plot([point.year] * 2, [point.low, point.high], color=colour, linewidth=3, alpha=0.3)
            # Costs fall, so that there is room above and to the right; a neighbour in the same year goes below.
            close = before is not None and point.year - before.year < CLOSE
            place = (5, -12) if close else (5, 6)
            axes.annotate(
                point.what, (point.year, point.cost), xytext=place, textcoords="offset points", fontsize=8,
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: number_text(value))
    axes.tick_params(axis="x", labelbottom=True)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(True, which="major", color="#e4e4e4")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.22, y=0.12)
    axes.legend(frameon=False, fontsize=9)
