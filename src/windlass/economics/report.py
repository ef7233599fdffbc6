"""What `windlass cost` answers: sheets side by side, their ranges, and what matters most; for people and machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windlass.economics.number_text import NEVER, number_text, quantity_text
from windlass.economics.sheet import Sheet
from windlass.economics.trajectory import Point, yearly_factor
from windlass.economics.uncertainty import DRAWS, SEED, Range, ranges, tornado

# Assumptions named below a result; --plot draws more.
SWINGS = 4


@dataclass(frozen=True, slots=True)
class CostReport:
    """Everything that one question came to. `notes` say what was left out, and why."""

    title: str
    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()

    def lines(self, explain: bool = False) -> list[str]:
        """For people; with `explain` the arithmetic of every sheet comes first."""
        lines = [line for sheet in self.sheets for line in sheet.explained()] if explain else []
        lines.append(self.title)
        lines += _trajectory(self.points) if self.points else _results(self.sheets)
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def as_dict(self) -> dict[str, object]:
        """For machines: JSON without infinities."""
        return {
            "title": self.title,
            "seed": SEED,
            "draws": DRAWS,
            "sheets": [_sheet(sheet) for sheet in self.sheets],
            "points": [point.as_dict() for point in self.points],
            "notes": list(self.notes),
        }


def _results(sheets: Sequence[Sheet]) -> list[str]:
    lines = [f"value, and where nine of ten draws of the assumptions fall ({DRAWS:,} draws, seed {SEED})"]
    for sheet in sheets:
        values, spread, unit = sheet.values(), ranges(sheet), sheet.unit
        meanings = {formula.name: formula.meaning for formula in sheet.formulas}
        width = max(map(len, sheet.results))
        lines += ["", sheet.title]
        for name in sheet.results:
            value = quantity_text(float(values[name]), unit[name])
            meaning = f"  {meanings[name]}" if name in meanings else ""
            lines.append(f"  {name:{width}s}  {value:>24s}  {_spread(spread[name]):>24s}{meaning}".rstrip())
        swings = tornado(sheet, sheet.results[0])[:SWINGS]
        told = [f"{swing.name} ({number_text(swing.at_low)} to {number_text(swing.at_high)})" for swing in swings]
        if told:
            lines.append(f"  {sheet.results[0]} depends most on {', '.join(told)}")
    return lines


def _spread(spread: Range) -> str:
    if spread.low == spread.high:
        return ""
    return f"{number_text(spread.low)} to {number_text(spread.high)}"


def _trajectory(points: Sequence[Point]) -> list[str]:
    lines = []
    for series in dict.fromkeys(point.series for point in points):
        own = sorted((point for point in points if point.series == series), key=lambda point: point.year)
        fall = f": {yearly_factor(own):.1f} times cheaper each year" if len(own) > 1 else ""
        lines += ["", f"{series}{fall}"]
        lines += [_point(point) for point in own]
    return lines


def _point(point: Point) -> str:
    spread = ""
    if point.low is not None and point.high is not None:
        spread = f"{number_text(point.low)} to {number_text(point.high)}"
    return f"  {_month(point.year)}  {quantity_text(point.cost, point.unit):>20s}  {spread:>24s}  {point.what}"


def _month(year: float) -> str:
    months = round(year * 12)
    return f"{months // 12}-{months % 12 + 1:02d}"


def _sheet(sheet: Sheet) -> Mapping[str, object]:
    values, spread, unit = sheet.values(), ranges(sheet), sheet.unit
    swings = tornado(sheet, sheet.results[0])
    return {
        "title": sheet.title,
        "results": {
            name: {"value": _finite(float(values[name])), "unit": unit[name], "range": spread[name].as_dict()}
            for name in sheet.results
        },
        "quantities": {name: {"value": _finite(float(value)), "unit": unit[name]} for name, value in values.items()},
        "assumptions": [each.as_dict() for each in sheet.assumptions],
        "formulas": [
            {"name": each.name, "expression": each.expression, "unit": each.unit, "meaning": each.meaning}
            for each in sheet.formulas
        ],
        "tornado": {
            "of": sheet.results[0],
            "swings": [
                {"name": swing.name, "at_low": _finite(swing.at_low), "at_high": _finite(swing.at_high)}
                for swing in swings
            ],
        },
    }


def _finite(value: float) -> float | str:
    return value if np.isfinite(value) else NEVER
