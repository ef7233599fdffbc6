"""How long each order of work has been busy, in a run."""

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
