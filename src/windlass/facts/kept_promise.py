"""A forecast beside what was measured: every phase and lane with its ratio."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.lane import LANES
from windlass.units import format_rate, format_seconds

# A lane that is busy for less than this share of its phase, forecast and measured, is not worth a line.
_WORTH_A_LINE = 0.02
_WORTH_A_RATIO = 0.05
"""Seconds. Where both figures are shorter the ratio says how the machine was just then, and nothing of the forecast."""


@dataclass(frozen=True, slots=True)
class KeptFigure:
    """One figure. `unit` is "s", or "B/s" where more is better."""

    name: str
    unit: str
    forecast: float
    measured: float

    @property
    def ratio(self) -> float | None:
        """Measured over forecast; None where nothing was forecast."""
        return self.measured / self.forecast if self.forecast else None

    def line(self) -> str:
        """`decode pass        2.05 s measured    1.90 s forecast   1.08`."""
        shown = format_seconds if self.unit == "s" else format_rate
        is_noise = self.unit == "s" and max(self.forecast, self.measured) < _WORTH_A_RATIO
        ratio = "" if self.ratio is None or is_noise else f"  {self.ratio:.2f}"
        return f"{self.name:16s} {shown(self.measured):>11s} measured {shown(self.forecast):>11s} forecast{ratio}"


@dataclass(frozen=True, slots=True)
class KeptPromise:
    """`forecast` is for the work that was done, `measured` what it took, in the same form.

    `rates` are measured bytes/s of a lane. A forecast of them is what the same bytes would take at the time forecast.
    """

    forecast: Forecast
    measured: Forecast
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def phases(self) -> tuple[tuple[str, PhaseForecast, PhaseForecast], ...]:
        """Name, forecast and measured of each phase that took place."""
        both = (
            ("prefill", self.forecast.prefill, self.measured.prefill),
            ("decode", self.forecast.decode, self.measured.decode),
        )
        return tuple(each for each in both if each[2].passes)

    def figures(self) -> tuple[KeptFigure, ...]:
        """Each phase, each lane that has a share in one, each rate."""
        found = [KeptFigure("load", "s", self.forecast.load_seconds, self.measured.load_seconds)]
        for name, forecast, measured in self.phases:
            if name == "prefill":
                found.append(KeptFigure("prefill", "s", forecast.seconds, measured.seconds))
            else:
                found.append(KeptFigure("decode pass", "s", forecast.seconds_per_pass, measured.seconds_per_pass))
            found += _lanes(name, forecast, measured)
        return (*found, *self._rates())

    def as_dict(self) -> dict[str, object]:
        """Every figure by name, for `--json`."""
        return {
            each.name: {"unit": each.unit, "forecast": each.forecast, "measured": each.measured, "ratio": each.ratio}
            for each in self.figures()
        }

    def lines(self) -> list[str]:
        """For people, one figure a line."""
        return [f"{'promise' if not place else '':8s} {each.line()}" for place, each in enumerate(self.figures())]

    def _rates(self) -> list[KeptFigure]:
        found = []
        for lane, rate in self.rates.items():
            forecast = sum(phase.lanes.get(lane, 0.0) for _, phase, _ in self.phases)
            measured = sum(phase.lanes.get(lane, 0.0) for _, _, phase in self.phases)
            if rate and forecast:
                found.append(KeptFigure(f"{lane} rate", "B/s", rate * measured / forecast, rate))
        return found


def _lanes(phase: str, forecast: PhaseForecast, measured: PhaseForecast) -> list[KeptFigure]:
    both = [(lane, forecast.lanes.get(lane, 0.0), measured.lanes.get(lane, 0.0)) for lane in LANES]
    least = _WORTH_A_LINE * min(forecast.seconds, measured.seconds)
    return [
        KeptFigure(f"{phase} {lane}", "s", ours, theirs) for lane, ours, theirs in both if max(ours, theirs) > least
    ]
