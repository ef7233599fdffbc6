"""A number that somebody has to take on trust: with its unit, its source, its date, and how wrong it may be."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.errors import UsageError

# Standard deviations within which nine tenths of a normal distribution lie, on either side of the middle.
NINE_TENTHS = 1.6448536269514722

# Between these every formula stays within what a float holds; no price, rate or count comes near.
TINIEST, LARGEST = 1e-30, 1e30

Drawn = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Assumption:
    """`value` in `unit`; nine times in ten it lies from `low` to `high`, both `value` where it is exact.

    `date` is when the source said so, as exactly as it is known: 2020, 2023-01 or 2026-11-09.
    """

    name: str
    value: float
    unit: str
    source: str
    date: str
    low: float
    high: float

    @property
    def is_exact(self) -> bool:
        """Whether nothing is drawn."""
        return self.low == self.high

    def drawn(self, normal: Drawn) -> Drawn:
        """Values for standard normal numbers: the middle is `value`, a twentieth lies below `low`, one above `high`.

        Between them it is normal in the logarithm, since prices and speeds are wrong by factors; a share stays below 1.
        """
        if self.value <= 0 or self.is_exact:
            return np.full_like(normal, self.value)
        up, down = np.log(self.high / self.value), np.log(self.value / self.low)
        found: Drawn = self.value * np.exp(np.where(normal > 0, up, down) * (normal / NINE_TENTHS))
        return np.minimum(found, 1.0) if self.unit == "share" else found

    def changed(self, value: float, source: str, date: str) -> "Assumption":
        """The same quantity, known exactly."""
        return replace(self, value=value, source=source, date=date, low=value, high=value)

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        found: dict[str, object] = {"name": self.name, "value": self.value, "unit": self.unit}
        return found | {"low": self.low, "high": self.high, "date": self.date, "source": self.source}


def exact(name: str, value: float, unit: str, source: str, date: str) -> Assumption:
    """A quantity without a range."""
    return Assumption(name, value, unit, source, date, value, value)


def check_value(what: str, value: float, unit: str) -> None:
    """Raises UsageError, beginning with `what`, for a number that no quantity in `unit` can be."""
    if value < 0:
        raise UsageError(f"{what} is {value:g}; it cannot be below 0")
    if unit == "share" and value > 1:
        raise UsageError(f"{what} is {value:g}; a share lies between 0 and 1, as 0.3 for 30 %")
    if value > LARGEST or 0 < value < TINIEST:
        raise UsageError(f"{what} is {value:g}; give 0, or a number from {TINIEST:g} to {LARGEST:g}")


def read_assumption(entry: Any, where: str) -> Assumption:
    """An entry of a data file. `low` and `high` may be left out. Raises UsageError, with `where` it stands."""
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: {entry!r:.60} is no assumption; write it as an object with name, value and unit")
    missing = [field for field in ("name", "value", "unit", "source", "date") if field not in entry]
    if missing:
        raise UsageError(f"{where}: {entry.get('name', entry)!s:.60} lacks {', '.join(missing)}; add them")
    name, value = str(entry["name"]), entry["value"]
    ends: list[Any] = [entry.get(end, value) for end in ("low", "high")]
    low, high = ends
    if not all(_is_number(number) for number in (value, low, high)):
        raise UsageError(
            f"{where}: {name} has {value!r:.40} with {low!r:.40} to {high!r:.40}; all must be finite numbers"
        )
    if not low <= value <= high or (low <= 0 < value):
        raise UsageError(f"{where}: {name} is {value:g}, from {low:g} to {high:g}; the range must hold it, above 0")
    unit, source, date = (str(entry[field]) for field in ("unit", "source", "date"))
    for number in (low, value, high):
        check_value(f"{where}: {name}", number, unit)
    return Assumption(name, float(value), unit, source, date, float(low), float(high))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
