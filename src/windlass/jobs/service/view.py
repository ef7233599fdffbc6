"""A service as it stands, for whoever watches: the page, metrics, a test. Bytes and seconds are plain numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from windlass.jobs.service.links import LinkRate
from windlass.jobs.service.tiers import Tier
from windlass.jobs.service.waits import Percentiles


@dataclass(frozen=True, slots=True)
class LaneView:
    """What a lane did in a pass: `(start, end, what)` of each piece of work, seconds from where the pass began."""

    name: str
    spans: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class PassView:
    """The last pass that is over."""

    number: int
    seconds: float
    lanes: tuple[LaneView, ...]


@dataclass(frozen=True, slots=True)
class QueueView:
    """`running` sequences in `places`, and `waiting` questions of which `capacity` may wait; pages of the cache.

    `pages_used` are held by sequences; `kept_pages` only hold what prompts began with, and go when they are wanted.
    """

    running: int
    places: int
    waiting: int
    capacity: int
    pages_used: int
    pages: int
    reserved_pages: int
    kept_pages: int


@dataclass(frozen=True, slots=True)
class SpeedView:
    """Tokens of answers a second over the last passes, measured and forecast; tokens read and drawn since the start."""

    tokens_per_second: float
    forecast: float | None
    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class WaitView:
    """Seconds that the latest urgent questions waited: for a place, their first token, and from one to the next."""

    place: Percentiles
    first_token: Percentiles
    between_tokens: Percentiles


@dataclass(frozen=True, slots=True)
class ServiceView:
    """`uptime` in seconds. `requests` counts how questions ended, and how often a sequence was set aside."""

    model: str
    state: str
    version: str
    uptime: float
    tiers: tuple[Tier, ...]
    links: tuple[LinkRate, ...]
    last_pass: PassView | None
    binds: str
    queue: QueueView
    speed: SpeedView
    wait: WaitView
    requests: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """For JSON; the last pass is called "pass"."""
        view = asdict(self)
        view["pass"] = view.pop("last_pass")
        return view
