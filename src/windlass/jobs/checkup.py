"""Looks at the machine: what it has, how fast it is, and which way of reading its disks take."""

import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
import transformers
from huggingface_hub.constants import HF_HUB_CACHE

from windlass.errors import StorageError
from windlass.facts.checkup import Checkup, DiskCheck
from windlass.facts.machine import Machine
from windlass.facts.machine_store import cpu_fields, cpu_name, profile_path
from windlass.jobs.machine_profile import OnProgress, known_machines
from windlass.kernels.backend import decode_backend, product_backend
from windlass.kernels.cuda.backend import device_backend
from windlass.memory.control_group import control_group_rooms
from windlass.memory.process_memory import available_bytes
from windlass.settings import usable_cores
from windlass.units import format_bytes

_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16")
# Filesystems that are memory: to measure one says nothing of a disk.
_MEMORY = ("tmpfs", "ramfs")


def checkup(folders: Sequence[Path], fresh: bool, on_progress: OnProgress) -> Checkup:
    """The first folder's disk is the profile's. Takes most of a minute where nothing is kept. Raises StorageError."""
    for folder in folders:
        if not folder.is_dir():
            raise StorageError(f"there is no folder {folder}; name the folder of a model, or one for --offload-dir")
    machines = known_machines(folders, fresh, on_progress)
    total = psutil.virtual_memory().total
    # A group without a limit may say so with a number larger than any machine.
    rooms = [room for room in control_group_rooms() if room < total]
    return Checkup(
        cores=usable_cores(),
        cpu=cpu_name(),
        cpu_features=_features(),
        memory_total=total,
        memory_available=available_bytes(),
        control_group=min(rooms) if rooms else None,
        attention=decode_backend(),
        products=product_backend(),
        devices=_devices(),
        disks=tuple(_check_disk(folder, machine) for folder, machine in zip(folders, machines, strict=True)),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        machine=machines[0],
        kept=str(profile_path(folders[0])),
    )


def usual_folder() -> Path:
    """Where models lie if nobody says: the hub's cache if there is one on a disk, else the current folder."""
    hub = Path(HF_HUB_CACHE)
    return hub if hub.is_dir() and _filesystem(hub) not in _MEMORY else Path.cwd()


def _check_disk(folder: Path, machine: Machine) -> DiskCheck:
    return DiskCheck(str(folder), shutil.disk_usage(folder).free, machine.disk, machine.disk_write)


def _filesystem(folder: Path) -> str:
    """The kind of the filesystem that holds the folder, "" where it is not known."""
    folder = folder.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[step] for step in (folder, *folder.parents) if step in mounts), "")


def _features() -> tuple[str, ...]:
    """Those worth showing; none on systems without /proc."""
    fields = cpu_fields()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return tuple(feature for feature in _FEATURES if feature in flags)


def _devices() -> tuple[str, ...]:
    """Accelerators torch can use, with their memory, and what computes there besides torch."""
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    besides = f"packed weights and decode by {device_backend()}"
    return tuple(
        f"cuda:{index} {device.name}, {format_bytes(device.total_memory)}; {besides}"
        for index, device in enumerate(found)
    )
