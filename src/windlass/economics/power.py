"""What this machine says of its own power: NVML of the card, RAPL of the processor. Both may be missing."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from windlass.economics.assumption import Assumption, exact

RAPL = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """Joules since some moment; after `wraps_at` joules it begins again at 0 (0: it does not)."""

    joules: float
    wraps_at: float = 0.0

    def since(self, before: "EnergyCounter") -> float:
        """Joules between two readings, of which the later one may have begun again once."""
        spent = self.joules - before.joules
        return spent + self.wraps_at if spent < 0 else spent


def energy_counters(folder: Path = RAPL) -> dict[str, EnergyCounter]:
    """Every counter that can be read, by name: processor packages, and the first card."""
    found = {}
    for package in _packages(folder):
        joules, wraps = _micro(package / "energy_uj"), _micro(package / "max_energy_range_uj")
        if joules is not None:
            found[package.name] = EnergyCounter(joules, wraps or 0.0)
    card = _card_figure("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
    return found if card is None else found | {"card": EnergyCounter(card)}


def joules_between(before: Mapping[str, EnergyCounter], after: Mapping[str, EnergyCounter]) -> float | None:
    """Joules of all counters together; None where there is none."""
    shared = before.keys() & after.keys()
    return sum(after[name].since(before[name]) for name in shared) if shared else None


def own_ratings(folder: Path = RAPL) -> dict[str, Assumption]:
    """`card_watts` and `host_busy_watts` as the machine itself gives them, as far as it does."""
    found = {}
    card = _card_figure("nvmlDeviceGetPowerManagementDefaultLimit", ctypes.c_uint)
    if card is not None:
        found["card_watts"] = exact("card_watts", card, "W", "NVML: the limit that the card has by default", "now")
    limits = [_micro(package / "constraint_0_power_limit_uw") for package in _packages(folder)]
    watts = sum(limit for limit in limits if limit)
    if watts:
        found["host_busy_watts"] = exact(
            "host_busy_watts", watts, "W", "RAPL: the long-term limit of the packages", "now"
        )
    return found


def _packages(folder: Path) -> list[Path]:
    """Whole packages; what lies within one is counted by it already."""
    return sorted(path for path in folder.glob("intel-rapl:*") if path.name.count(":") == 1)


def _micro(file: Path) -> float | None:
    """A number in millionths; None where it may not be read, as energy may not by most users."""
    try:
        return int(file.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def _card_figure(function: str, kind: type[ctypes.c_uint] | type[ctypes.c_ulonglong]) -> float | None:
    """A figure of the first card in thousandths, or None where there is no NVML, no card, or no such figure."""
    try:
        nvml = ctypes.CDLL(NVML)
        asked = getattr(nvml, function)
    except (OSError, AttributeError):
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        handle, value = ctypes.c_void_p(), kind()
        if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) != 0:
            return None
        return value.value / 1e3 if asked(handle, ctypes.byref(value)) == 0 else None
    finally:
        nvml.nvmlShutdown()
