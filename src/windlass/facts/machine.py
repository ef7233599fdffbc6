"""What the machine can do: cores, memory and the measured rates that every plan is made from."""

from dataclasses import dataclass

from windlass.facts.disk_profile import DiskProfile


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes, rates in bytes/s and flops/s. A rate of 0.0 was not measured.

    `memory_available` is what the process may still take: free memory, no more than its control group allows.
    The disk is the one that holds the checkpoint.
    """

    cores: int
    memory_total: int
    memory_available: int
    disk_rate: float
    disk_chunk: int
    disk_depth: int
    direct_io: bool
    direct_io_reason: str
    matmul_rate: float = 0.0
    copy_rate: float = 0.0

    @property
    def disk(self) -> DiskProfile:
        """The disk's part, as its reader wants it."""
        return DiskProfile(self.disk_rate, self.disk_chunk, self.disk_depth, self.direct_io, self.direct_io_reason)
