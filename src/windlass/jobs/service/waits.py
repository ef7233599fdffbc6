"""How long people wait: for a place, for the first token, from one token to the next."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

# As many of the latest are kept of each.
KEPT = 2048


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that half of the waits, and all but a hundredth of them, stayed within; None where there were none."""

    p50: float | None
    p99: float | None


def percentiles(seconds: Iterable[float]) -> Percentiles:
    """Of waits, by the nearest rank: each is one that somebody really waited."""
    ordered = sorted(seconds)
    if not ordered:
        return Percentiles(None, None)
    return Percentiles(*(ordered[max(0, -(-len(ordered) * share // 100) - 1)] for share in (50, 99)))


@dataclass(slots=True)
class Waits:
    """The latest waits of people; what can wait is not among them. `stays` are seconds from a place to the end."""

    place: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    first_token: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    between_tokens: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    stays: deque[float] = field(default_factory=lambda: deque(maxlen=32))
