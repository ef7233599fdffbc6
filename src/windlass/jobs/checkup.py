"""Looks at the machine: what it has, how fast it is, and which way of reading its disks take."""

import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
import transformers

from windlass.errors import StorageError
from windlass.facts.checkup import Checkup, DiskCheck
from windlass.facts.disk_profile import DiskProfile
from windlass.kernels.backend import decode_backend
from windlass.memory.control_group import control_group_rooms
from windlass.memory.probe import measure_copy, measure_disk, measure_matmul
from windlass.memory.process_memory import available_bytes
from windlass.settings import usable_cores
from windlass.units import MIB, format_bytes

_SAMPLE_BYTES = 256 * MIB
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16")
_ROWS = 128


def checkup(folders: Sequence[Path]) -> Checkup:
    """Takes a few seconds, most of them reading from the disks of `folders`. Raises StorageError.

    The first time on a machine, some go into compiling the native kernel.
    """
    total = psutil.virtual_memory().total
    # A group without a limit may say so with a number larger than any machine.
    rooms = [room for room in control_group_rooms() if room < total]
    name, features = _cpu()
    return Checkup(
        cores=usable_cores(),
        cpu=name,
        cpu_features=features,
        memory_total=total,
        memory_available=available_bytes(),
        control_group=min(rooms) if rooms else None,
        copy_rate=measure_copy(),
        matmul_rates={
            "bfloat16": measure_matmul(torch.bfloat16, _ROWS),
            "float32": measure_matmul(torch.float32, _ROWS),
        },
        attention=decode_backend(),
        devices=_devices(),
        disks=tuple(check_disk(folder) for folder in folders),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


def check_disk(folder: Path) -> DiskCheck:
    """Measures on the checkpoint in `folder`, or on a file written for it and removed. Raises StorageError."""
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}; name the folder of a model, or one for --offload-dir")
    free = shutil.disk_usage(folder).free
    if sum(file.stat().st_size for file in folder.glob("*.safetensors")) >= _SAMPLE_BYTES:
        return DiskCheck(str(folder), free, measure_disk(folder))
    if free < 2 * _SAMPLE_BYTES:
        reason = f"not measured: a sample takes {format_bytes(_SAMPLE_BYTES)}, and twice that should be free"
        return DiskCheck(str(folder), free, DiskProfile(0.0, 0, 0, False, reason))
    return DiskCheck(str(folder), free, _measure_sample(folder))


def _measure_sample(folder: Path) -> DiskProfile:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="windlass-sample-") as sample:
            # Random bytes: a disk or filesystem that compresses would flatter itself with zeros.
            block = os.urandom(8 * MIB)
            for _ in range(_SAMPLE_BYTES // len(block)):
                sample.write(block)
            sample.flush()
            os.fsync(sample.fileno())
            return measure_disk(Path(sample.name))
    except OSError as error:
        raise StorageError(f"cannot write a sample to {folder}: {error.strerror}; name another folder") from error


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Name and the features worth showing; on systems without /proc only the name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), ()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name", platform.machine())
    return name, tuple(feature for feature in _FEATURES if feature in flags)


def _devices() -> tuple[str, ...]:
    """Accelerators torch can use, with their memory."""
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(
        f"cuda:{index} {device.name}, {format_bytes(device.total_memory)}" for index, device in enumerate(found)
    )
