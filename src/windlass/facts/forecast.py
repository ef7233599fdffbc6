"""What a run is expected to take, phase by phase and lane by lane, before it has begun."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class PhaseForecast:
    """One phase of a whole job: `tokens` prompt tokens (prefill) or generated tokens (decode), in `passes` passes.

    `lanes` says for how many of its `seconds` each lane is busy.
    """

    tokens: int
    passes: int
    seconds: float
    lanes: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_per_pass(self) -> float:
        """Of one pass over the whole model."""
        return self.seconds / self.passes if self.passes else 0.0

    @property
    def bound_by(self) -> str:
        """The busiest lane."""
        return max(self.lanes, key=lambda lane: self.lanes[lane]) if self.lanes else "nothing"


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds. The job takes between `low` and `high` times what is forecast, as far as this machine is known."""

    load_seconds: float
    prefill: PhaseForecast
    decode: PhaseForecast
    low: float = 0.85
    high: float = 1.2

    @property
    def seconds(self) -> float:
        """Loading, prompts and answers."""
        return self.load_seconds + self.prefill.seconds + self.decode.seconds

    def as_dict(self) -> dict[str, object]:
        """Every figure, for `--json`."""
        return asdict(self) | {
            "seconds": self.seconds,
            "prefill_rate": self.prefill.rate,
            "decode_rate": self.decode.rate,
            "seconds_per_pass": self.decode.seconds_per_pass,
        }
