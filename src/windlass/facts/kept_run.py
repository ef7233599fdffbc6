"""One run as it is remembered: what was forecast, what was measured, by which plan, on which machine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.kept_promise import KeptPromise


@dataclass(frozen=True, slots=True)
class KeptRun:
    """`date` is ISO, in UTC. `machine` and `machine_measured` name the profile that was forecast with (see Machine).

    `corrections` are those that the forecast was made with, so that runs made with others can be compared.
    """

    date: str
    model: str
    plan: Mapping[str, object]
    machine: str
    machine_measured: str
    corrections: Mapping[str, float]
    promise: KeptPromise

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"figures": self.promise.as_dict()}


def read_kept_run(document: Any) -> KeptRun | None:
    """What `as_dict` made, or None for anything else: a record of another version is no error."""
    try:
        promise = document["promise"]
        return KeptRun(
            str(document["date"]),
            str(document["model"]),
            dict(document["plan"]),
            str(document["machine"]),
            str(document["machine_measured"]),
            _numbers(document["corrections"]),
            KeptPromise(_forecast(promise["forecast"]), _forecast(promise["measured"]), _numbers(promise["rates"])),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _forecast(fields: Any) -> Forecast:
    return Forecast(
        float(fields["load_seconds"]),
        _phase(fields["prefill"]),
        _phase(fields["decode"]),
        float(fields["low"]),
        float(fields["high"]),
    )


def _phase(fields: Any) -> PhaseForecast:
    return PhaseForecast(
        int(fields["tokens"]), int(fields["passes"]), float(fields["seconds"]), _numbers(fields["lanes"])
    )


def _numbers(fields: Any) -> dict[str, float]:
    return {str(name): float(value) for name, value in dict(fields).items()}
