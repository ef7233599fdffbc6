"""How the checkpoint's disk reads best: as `windlass doctor` found, else measured where every pass depends on it."""

from pathlib import Path

from windlass.facts.disk_profile import DiskProfile
from windlass.facts.machine_store import kept_machine
from windlass.facts.plan import Plan
from windlass.memory.probe import DEFAULT_CHUNK, DEFAULT_DEPTH, measure_disk

# How long the disk is measured before a model that streams (seconds).
DISK_SECONDS = 1.5


def best_disk(folder: Path, plan: Plan) -> DiskProfile:
    """Of the disk that `folder` lies on."""
    if plan.host_bill.ring or plan.host_bill.expert_ring:
        kept = kept_machine(folder)
        if kept is not None and kept.disk.rate:
            return kept.disk
        return measure_disk(folder, seconds=DISK_SECONDS)
    return DiskProfile(0.0, DEFAULT_CHUNK, DEFAULT_DEPTH, True, "not measured: nothing streams")
