"""How the cost of GPT-3's quality has moved: of a token by published prices, of training by dated hardware.

Old prices stay with their date. Training is computed: GPT-3 as it was, and the cheapest model of the same loss.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from windlass.economics.assumption import Assumption
from windlass.economics.assumption_sets import by_name, content
from windlass.economics.loss_law import HOFFMANN, cheapest, constants, law_of
from windlass.economics.sheet import Sheet
from windlass.economics.training import model_named, model_of, training_sheet
from windlass.economics.uncertainty import ranges

TOKEN_UNIT = "USD/Mtoken"
# When the prices of the last machines were read.
LAST = 2026 + 10 / 12
TOKEN, ON_ONE_CARD = "a million tokens, as sold", "a million tokens, Windlass on one card"
AS_IT_WAS, SAME_LOSS = "training GPT-3 as it was", "training the cheapest of its loss"


@dataclass(frozen=True, slots=True)
class Point:
    """A cost at a date: of `series`, on or by `what`. `year` is a fraction. Nine of ten draws lie from `low` to
    `high`; a price that was published has neither."""

    series: str
    what: str
    year: float
    cost: float
    unit: str
    source: str
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return asdict(self)


def year_of(date: str) -> float:
    """`2023-01` -> 2023.0, `2020` -> 2020.5: the month's beginning, the year's middle."""
    year, _, rest = date.partition("-")
    return int(year) + ((int(rest[:2]) - 1) / 12 if rest else 0.5)


def published_tokens() -> list[Point]:
    """What a million tokens of GPT-3's quality were sold for."""
    found = by_name(content("trajectory")["tokens"], "trajectory.json").values()
    return [Point(TOKEN, each.name, year_of(each.date), each.value, each.unit, each.source) for each in found]


def training_sheets() -> list[tuple[str, str, Sheet]]:
    """(series, date, sheet) of training on each dated hardware."""
    law = constants(HOFFMANN)
    title, gpt3 = model_named("gpt3")
    loss = law_of(law).loss(gpt3["parameters"].value, gpt3["training_tokens"].value)
    shape = cheapest(law_of(law), loss)
    small = model_of(shape.parameters, shape.tokens)
    found = []
    for entry in content("trajectory")["hardware"]:
        pool: dict[str, Assumption] = by_name(entry["assumptions"], "trajectory.json") | law
        for series, model in ((AS_IT_WAS, gpt3), (SAME_LOSS, small)):
            found.append((series, entry["date"], training_sheet(f"{series}, {entry['name']}", model, pool)))
    return found


def training_points(sheets: Sequence[tuple[str, str, Sheet]]) -> list[Point]:
    """What each of those trainings costs."""
    source = "computed; --explain shows how"
    return [
        computed_point(series, sheet.title.rpartition(", ")[2], year_of(date), sheet, source)
        for series, date, sheet in sheets
    ]


def computed_point(series: str, what: str, year: float, sheet: Sheet, source: str) -> Point:
    """The first result of a sheet as a point, with its range."""
    name = sheet.results[0]
    spread = ranges(sheet)[name]
    return Point(series, what, year, sheet.value(name), sheet.unit[name], source, spread.low, spread.high)


def yearly_factor(points: Sequence[Point]) -> float:
    """By how much the cost falls in a year: of the straight line through the logarithms."""
    slope = np.polyfit([point.year for point in points], [math.log(point.cost) for point in points], 1)[0]
    return float(math.exp(-slope))
