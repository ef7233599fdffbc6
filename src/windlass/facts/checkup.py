"""What `windlass doctor` finds: the machine, its rates and what that means for a model larger than memory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from windlass.facts.disk_profile import DiskProfile
from windlass.facts.machine import Machine
from windlass.facts.machine_file import machine_json
from windlass.facts.machine_table import machine_lines
from windlass.units import format_bytes, format_rate, format_size

# Flags of /proc/cpuinfo with which bfloat16 products run at full speed.
FAST_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True, slots=True)
class DiskCheck:
    """A folder's disk. Sizes in bytes; `profile` is what read best there, `write_rate` bytes/s, 0.0 if not measured."""

    folder: str
    free: int
    profile: DiskProfile
    write_rate: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        if not self.profile.rate:
            return [f"disk     {self.folder}: {format_bytes(self.free)} free, {self.profile.reason}"]
        written = f", {format_rate(self.write_rate)} written" if self.write_rate else ""
        return [
            f"disk     {self.folder}: {format_rate(self.profile.rate)} read, best with {self.profile.depth} reads of "
            f"{format_size(self.profile.chunk)} in flight{written}, {format_bytes(self.free)} free",
            f"         {self.profile.reason}",
        ]


@dataclass(frozen=True, slots=True)
class Checkup:
    """Bytes. `control_group` is what the tightest control group leaves, None where none limits.

    `cpu_features` are those that decide the speed of bfloat16; `attention` says what attends on the cpu when decoding,
    `products` what multiplies packed weights there, and why; `devices` names accelerators with their memory.
    `machine` is the profile with the disk of the first folder; it is kept in `kept`.
    """

    cores: int
    cpu: str
    cpu_features: tuple[str, ...]
    memory_total: int
    memory_available: int
    control_group: int | None
    attention: str
    products: str
    devices: tuple[str, ...]
    disks: tuple[DiskCheck, ...]
    versions: Mapping[str, str]
    machine: Machine
    kept: str

    def as_dict(self) -> dict[str, object]:
        """For `--json`; `machine` is as in a profile file."""
        return asdict(self) | {"machine": machine_json(self.machine)}

    def lines(self) -> list[str]:
        """For people, one fact a line, then the table and what it means."""
        return [
            f"cpu      {self.cpu}, {self.cores} cores",
            f"         {self._bfloat16()}",
            f"memory   {self._memory()}",
            *(f"device   {device}" for device in self.devices or ("none but the cpu",)),
            *(line for disk in self.disks for line in disk.lines()),
            f"decode   attends by {self.attention}",
            f"products of packed weights by {self.products}",
            *machine_lines(self.machine),
            f"kept     in {self.kept}; --fresh measures again",
            "stands   on " + ", ".join(f"{name} {number}" for name, number in self.versions.items()),
        ]

    def _bfloat16(self) -> str:
        fast = [feature for feature in self.cpu_features if feature in FAST_BFLOAT16]
        if fast:
            return f"bfloat16 runs at full speed ({', '.join(self.cpu_features)})"
        return f"bfloat16 is emulated, so float32 may be faster; the cpu has none of {', '.join(FAST_BFLOAT16)}"

    def _memory(self) -> str:
        text = f"{format_size(self.memory_available)} may be taken of {format_size(self.memory_total)}"
        if self.control_group is None:
            return f"{text}; no control group limits it"
        return f"{text}; a control group leaves {format_size(self.control_group)}"
