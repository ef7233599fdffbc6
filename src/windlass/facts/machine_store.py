"""Where the profile of this machine and one of its disks is kept between runs, and how the machine is told apart.

No torch here, so that `windlass plan` finds a kept profile at once.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from windlass.errors import UsageError
from windlass.facts.machine import Machine
from windlass.facts.machine_file import VERSION, read_machine
from windlass.settings import cache_folder, num_threads, usable_cores

_NVIDIA = Path("/proc/driver/nvidia")


def kept_machine(folder: Path) -> Machine | None:
    """The profile of this machine and the disk of `folder`, or None where it was not measured as it is now."""
    try:
        return read_machine(profile_path(folder))
    except UsageError:
        return None  # absent, broken or of another version: it is measured again


def kept_beside() -> Machine | None:
    """A profile of this machine with another disk: all but the disk of it holds for every disk."""
    for file in sorted(_folder().glob(f"{_hash(machine_identity())}-*.json")):
        try:
            return read_machine(file)
        except UsageError:
            continue
    return None


def profile_path(folder: Path) -> Path:
    """The file of the profile, which need not exist."""
    return _folder() / f"{_hash(machine_identity())}-{_hash(disk_identity(folder))}.json"


def disk_identity(folder: Path) -> Mapping[str, object]:
    """The disk of a folder, which need not exist yet: its mount point and device."""
    disk = _existing(folder)
    return {"mount": str(_mount(disk)), "device": disk.stat().st_dev}


def machine_identity() -> Mapping[str, object]:
    """What a measurement is good for, apart from its disk: when any of it changes, the machine is measured anew."""
    return {
        "version": VERSION,
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": num_threads(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "torch": metadata.version("torch"),
        "devices": _devices(),
    }


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its kind."""
    return cpu_fields().get("model name") or platform.processor() or platform.machine()


def cpu_fields() -> Mapping[str, str]:
    """What /proc/cpuinfo says of the last core; empty on systems without it."""
    text = _text(Path("/proc/cpuinfo"))
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _folder() -> Path:
    return cache_folder() / "machines"


def _hash(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _devices() -> list[str]:
    """Driver and names of NVIDIA devices, as the driver itself lists them: asking CUDA would load torch."""
    driver = _text(_NVIDIA / "version").splitlines()[:1]
    models = [
        line.split(":", 1)[1].strip()
        for file in sorted(_NVIDIA.glob("gpus/*/information"))
        for line in _text(file).splitlines()
        if line.startswith("Model:")
    ]
    return driver + models


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _mount(path: Path) -> Path:
    path = path.resolve()
    return next(step for step in (path, *path.parents) if os.path.ismount(step) or step == step.parent)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
