"""A rate that depends on how much is done at once: few rows are bound by memory, many by arithmetic."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateCurve:
    """`points` are (amount, rate) with rising amounts; rates in flops/s or bytes/s, amounts in whatever is counted."""

    points: tuple[tuple[int, float], ...]

    def at(self, amount: float) -> float:
        """The rate at `amount`: geometric between two points, the nearest point's outside of all; 0.0 without points.

        Below the first point the work takes as long as at the first, so the rate falls in proportion.
        """
        if not self.points:
            return 0.0
        first, last = self.points[0], self.points[-1]
        if amount <= first[0]:
            return first[1] * max(amount, 0.0) / first[0] if first[0] else first[1]
        if amount >= last[0]:
            return last[1]
        for (low, slow), (high, fast) in zip(self.points, self.points[1:], strict=False):
            if amount <= high:
                share = (math.log(amount) - math.log(low)) / (math.log(high) - math.log(low))
                return math.exp(math.log(slow) + share * (math.log(fast) - math.log(slow)))
        return last[1]

    @property
    def best(self) -> float:
        """The highest rate of all points."""
        return max((rate for _, rate in self.points), default=0.0)

    def scaled(self, factor: float) -> "RateCurve":
        """The same curve at `factor` times the rate."""
        return RateCurve(tuple((amount, rate * factor) for amount, rate in self.points))
