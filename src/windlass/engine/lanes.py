"""How long each order of work has been busy, in a run."""

from collections.abc import Iterable, Mapping

from windlass.engine.engine import Engine
from windlass.facts.lane import LANES


def lane_seconds(engine: Engine, passes: float) -> dict[str, float]:
    """Busy seconds so far by lane, where the passes have taken `passes` seconds of wall time."""
    upload, download = engine.accelerator.busy_seconds() if engine.accelerator else (0.0, 0.0)
    waited = engine.weights.wait_seconds + engine.crew.wait_seconds
    disk = engine.reader.busy_seconds + (engine.disk_cache.file.busy_seconds if engine.disk_cache else 0.0)
    busy = (disk, upload, max(0.0, passes - waited), download, engine.host_lane.busy_seconds)
    return dict(zip(LANES, busy, strict=True))


def added(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What has been added since."""
    return {lane: after[lane] - before[lane] for lane in LANES}


def together_busy(lanes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Busy seconds of each lane over several phases."""
    phases = list(lanes)
    return {lane: sum(phase[lane] for phase in phases) for lane in LANES}


def bound_by(busy: Mapping[str, float], total: float) -> str:
    """The lane that was busiest in `total` seconds of passes, and for how much of them."""
    if not total:
        return "nothing"
    busiest = max(LANES, key=lambda lane: busy[lane])
    names = {"disk": "the disk", "upload": "the link to the device", "download": "the link from the device"}
    return f"{names.get(busiest, busiest)} (busy {min(1.0, busy[busiest] / total):.0%} of the time)"
