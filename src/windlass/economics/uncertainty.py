"""How sure a result is: assumptions drawn together for its range, and swung one by one to see which matters most."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from windlass.economics.assumption import Drawn
from windlass.economics.sheet import Sheet

DRAWS, SEED = 4096, 0
LOW, HIGH = 5.0, 95.0


@dataclass(frozen=True, slots=True)
class Range:
    """Nine draws in ten give something from `low` to `high`; `middle` is their median."""

    low: float
    middle: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For machines; what is infinite is None there, since JSON has no word for it."""
        return {name: value for name, value in asdict(self).items() if np.isfinite(value)}


@dataclass(frozen=True, slots=True)
class Swing:
    """What a result becomes when one assumption takes its low and its high value, all others being what they are."""

    name: str
    at_low: float
    at_high: float

    @property
    def width(self) -> float:
        """How far apart."""
        return abs(self.at_high - self.at_low) if np.isfinite(self.at_high - self.at_low) else np.inf


def ranges(sheet: Sheet, seed: int = SEED, draws: int = DRAWS) -> Mapping[str, Range]:
    """The range of every result. Assumptions are drawn apart from each other; the same seed gives the same draws."""
    values = sheet.values(drawn_assumptions(sheet, seed, draws))
    found = {}
    for name in sheet.results:
        every = np.broadcast_to(np.asarray(values[name], dtype=np.float64), (draws,))
        low, middle, high = np.percentile(every, (LOW, 50.0, HIGH), method="nearest")
        found[name] = Range(float(low), float(middle), float(high))
    return found


def drawn_assumptions(sheet: Sheet, seed: int, draws: int) -> dict[str, Drawn]:
    """Draws of every assumption that is not exact, by name: those of one do not depend on which others there are."""
    found = {}
    for each in sheet.assumptions:
        if not each.is_exact:
            own = np.random.default_rng([seed, *each.name.encode()])
            found[each.name] = each.drawn(own.standard_normal(draws))
    return found


def tornado(sheet: Sheet, result: str) -> list[Swing]:
    """The assumptions that change `result`, the one that changes it most first."""
    found = []
    for each in sheet.assumptions:
        if not each.is_exact:
            ends = [float(sheet.values({each.name: value})[result]) for value in (each.low, each.high)]
            if ends[0] != ends[1]:
                found.append(Swing(each.name, *ends))
    return sorted(found, key=lambda swing: -swing.width)
