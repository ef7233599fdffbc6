"""What the links carry: bytes a second over the last passes, beside what the machine was measured to carry."""

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.engine.block_state import BlockState
from windlass.facts.machine import Machine
from windlass.facts.plan import Plan


@dataclass(frozen=True, slots=True)
class LinkRate:
    """Bytes/s: `rate` over the whole time of the last passes, the link's idle time too; `limit` None where unknown."""

    name: str
    lane: str
    rate: float
    limit: float | None


def link_rates(plan: Plan | None, machine: Machine | None, passes: Sequence[BlockState]) -> tuple[LinkRate, ...]:
    """From the states before and after each of the last passes. A link to a device is there where there is one."""
    disk, up, down = 0.0, 0.0, 0.0
    if len(passes) > 1 and passes[-1].seconds > passes[0].seconds:
        first, last = passes[0], passes[-1]
        seconds = last.seconds - first.seconds
        disk = (last.disk_bytes - first.disk_bytes) / seconds
        up = (last.upload_bytes - first.upload_bytes) / seconds
        down = (last.download_bytes - first.download_bytes) / seconds
    found = (LinkRate("disk to host", "disk", disk, machine.disk.rate if machine else None),)
    if plan is None or plan.host is None:
        return found
    link = machine.link if machine else None
    return (
        *found,
        LinkRate("host to device", "upload", up, link.upload if link else None),
        LinkRate("device to host", "download", down, link.download if link else None),
    )
