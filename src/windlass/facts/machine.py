"""What a machine can do: the measured, or catalogued, rates that every plan and every forecast is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.link import Link

BUSY_SOURCE = "busy"
"""What `sources` calls the remark that others used the processor while it was measured."""


@dataclass(frozen=True, slots=True)
class Machine:
    """`measured` is the ISO date of the measurement, or says where the figures come from.

    `disk` is the disk that holds the checkpoint, or the offload folder; `disk_write` its bytes/s of writing.
    `process_bytes` is what interpreter and libraries hold before a model is opened. `sources` says for a figure where
    it comes from, `corrections` by which factor runs have shown a lane ("disk", "upload", "compute", "download",
    "host") to be faster (over 1) or slower than measured; the measured rates stay as they were.
    """

    name: str
    measured: str
    cores: int
    host: ComputeRates
    disk: DiskProfile
    disk_write: float
    process_bytes: int
    device: ComputeRates | None = None
    link: Link | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    corrections: Mapping[str, float] = field(default_factory=dict)

    @property
    def compute(self) -> ComputeRates:
        """Where a model computes: the device if there is one."""
        return self.device or self.host
