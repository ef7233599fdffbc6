"""Measures this machine and one of its disks, once, and keeps what was found: every plan and forecast stands on it."""

import datetime
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from windlass.engine.layer_rates import LayerRates, measure_layers
from windlass.engine.target import HOST, Target
from windlass.errors import StorageError
from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.machine import BUSY_SOURCE, Machine
from windlass.facts.machine_file import write_machine
from windlass.facts.machine_store import cpu_name, kept_beside, kept_machine, profile_path
from windlass.facts.own_checkpoint import BLOCK_BYTES, own_packing
from windlass.kernels.attention_rates import measure_decode_attention, measure_prefill_attention
from windlass.kernels.packed_rates import measure_packed_products
from windlass.kernels.plain_linear import plain_linear
from windlass.memory.device_rates import device_memory, measure_link
from windlass.memory.disk_sample import SAMPLE_BYTES, disk_sample
from windlass.memory.probe import DEFAULT_CHUNK, DEFAULT_DEPTH, measure_disk
from windlass.memory.process_memory import available_bytes, limit_malloc, resident_bytes
from windlass.memory.product_rates import LAYER, ROWS, measure_copies, measure_products, measure_reads
from windlass.settings import num_threads, usable_cores
from windlass.units import GIB, MIB, format_bytes

OnProgress = Callable[[str, int, int], None]
"""Hears what is measured next, how many steps are done and how many there are."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured; tests measure little. Sizes in bytes, times in seconds for each point."""

    shapes: tuple[tuple[int, int], ...] = LAYER
    rows: tuple[int, ...] = ROWS
    prompts: tuple[int, ...] = (16, 64, 256, 512, 1024, 2048)
    groups: tuple[int, ...] = (1, 2, 4, 8, 16)
    cold_bytes: int = 192 * MIB
    sequences: int = 16
    prompt_rows: int = 512
    seconds: float = 0.2
    disk_seconds: float = 4.0
    sample: int = SAMPLE_BYTES
    width: int = 2048
    layer_rows: int = 512
    passes: int = 6


FULL = Effort()
# Where little memory is free: matrices of half the width are still larger than the caches of such a machine.
SMALL = replace(FULL, shapes=tuple((out // 2, into // 2) for out, into in LAYER), cold_bytes=96 * MIB)
ROOM = 3 * GIB
# A share of the cores that others keep busy from which the figures are doubted.
BUSY = 0.15


def known_machine(
    folder: Path,
    fresh: bool = False,
    on_progress: OnProgress = lambda step, done, total: None,
    effort: Effort | None = None,
) -> Machine:
    """The profile of this machine and the disk of `folder`: kept from before, or measured now and kept.

    Measuring takes most of a minute, another disk of a machine that is known a few seconds. With `fresh` everything is
    done again. Raises StorageError for a folder that is missing.
    """
    return known_machines((folder,), fresh, on_progress, effort)[0]


def known_machines(
    folders: Sequence[Path],
    fresh: bool = False,
    on_progress: OnProgress = lambda step, done, total: None,
    effort: Effort | None = None,
) -> tuple[Machine, ...]:
    """As `known_machine`, with the disk of each folder; all else is measured once."""
    found: list[Machine] = []
    for folder in folders:
        kept = None if fresh else kept_machine(folder)
        if kept is None:
            beside = found[0] if found else None if fresh else kept_beside()
            if beside is None:
                kept = measure_machine(folder, on_progress=on_progress, effort=effort)
            else:
                kept = with_disk(beside, folder, on_progress, effort)
            _keep(folder, kept)
        found.append(kept)
    return tuple(found)


def _keep(folder: Path, machine: Machine) -> None:
    try:
        write_machine(profile_path(folder), machine)
    except OSError:
        return  # a cache that cannot be written costs a measurement next time, nothing else


def with_disk(
    machine: Machine,
    folder: Path,
    on_progress: OnProgress = lambda step, done, total: None,
    effort: Effort | None = None,
) -> Machine:
    """The same machine with the disk of `folder`, which is measured now. Raises StorageError."""
    _require(folder)
    disk, write, sources = _disk(folder, effort or FULL, _Steps(on_progress, 2))
    corrections = {lane: factor for lane, factor in machine.corrections.items() if lane != "disk"}
    return replace(
        machine, disk=disk, disk_write=write, sources=dict(machine.sources) | sources, corrections=corrections
    )


def measure_machine(
    folder: Path,
    device: torch.device | None = None,
    on_progress: OnProgress = lambda step, done, total: None,
    effort: Effort | None = None,
) -> Machine:
    """Measures everything now; `device` is the CUDA device, the first one if there is any. Raises StorageError."""
    _require(folder)
    if device is None and torch.cuda.is_available():
        device = torch.device("cuda", 0)
    process_bytes, neighbours = resident_bytes(), _Neighbours()
    limit_malloc()
    effort = effort or (FULL if available_bytes() >= ROOM else SMALL)
    with _threads(num_threads()):
        steps = _Steps(on_progress, 2 + (3 + 3 * len(_dtypes())) * (2 if device else 1))
        disk, write, sources = _disk(folder, effort, steps)
        host = _compute(HOST, cpu_name(), psutil.virtual_memory().total, effort, steps)
        there = None
        if device is not None:
            name = torch.cuda.get_device_properties(device).name
            there = _compute(Target(device), name, device_memory(device), effort, steps)
    return Machine(
        name=_name(host, there),
        measured=datetime.date.today().isoformat(),
        cores=usable_cores(),
        host=host,
        disk=disk,
        disk_write=write,
        process_bytes=process_bytes,
        device=there,
        link=measure_link(device) if device is not None else None,
        sources=sources | _sources(effort) | neighbours.remark(),
    )


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}; name the folder of a model, or one for --offload-dir")


def _name(host: ComputeRates, device: ComputeRates | None) -> str:
    beside = f" and {device.name}" if device else ""
    return f"{host.name}, {usable_cores()} cores{beside}"


class _Neighbours:
    """How much of the processor other processes take from when this was made."""

    def __init__(self) -> None:
        self._wall, self._own, self._all = time.perf_counter(), time.process_time(), _busy_seconds()

    def remark(self) -> dict[str, str]:
        """A source that warns where it was much: what is measured beside them is too slow."""
        wall = time.perf_counter() - self._wall
        others = _busy_seconds() - self._all - (time.process_time() - self._own)
        cores = others / max(wall, 1e-3)
        if cores < BUSY * (psutil.cpu_count() or 1):
            return {}
        return {
            BUSY_SOURCE: f"other processes kept {cores:.1f} cores busy while this was measured, so its rates may be "
            "too low; measure again with windlass doctor --fresh when the machine is idle"
        }


def _busy_seconds() -> float:
    """Seconds that all processors have worked for anyone."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


class _Steps:
    """Counts what has been measured, for whoever waits."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def begin(self, step: str) -> None:
        self._on_progress(step, min(self._done, self._total), self._total)
        self._done += 1


def _disk(folder: Path, effort: Effort, steps: _Steps) -> tuple[DiskProfile, float, dict[str, str]]:
    """How the disk reads best, bytes/s of writing (0.0 where it may not be written), and what was measured."""
    steps.begin(f"writing to {folder}")
    free = shutil.disk_usage(folder).free
    checkpoint = sum(file.stat().st_size for file in folder.glob("*.safetensors")) >= effort.sample
    if free < 2 * effort.sample:
        reason = f"a sample takes {format_bytes(effort.sample)}, and twice that should be free"
    else:
        try:
            # What is there already is read first: a disk is busy for a while with what was just written.
            disk = measure_disk(folder, effort.disk_seconds) if checkpoint else None
            with disk_sample(folder, effort.sample) as sample:
                steps.begin(f"reading from {folder}")
                disk = disk or measure_disk(sample.file, effort.disk_seconds)
                what = "the checkpoint there" if checkpoint else f"a sample of {format_bytes(sample.nbytes)}"
                how = "around" if sample.direct else "through"
                written = f"{format_bytes(sample.nbytes)} written {how} the page cache to {folder} and flushed"
                return disk, sample.write_rate, {"disk": f"cold reads of {what} in {folder}", "disk_write": written}
        except StorageError as error:
            reason = str(error)
    steps.begin(f"reading from {folder}")
    unwritten = {"disk_write": f"not measured: {reason}"}
    if checkpoint:
        found = measure_disk(folder, effort.disk_seconds)
        return found, 0.0, unwritten | {"disk": f"cold reads of the checkpoint in {folder}"}
    unread = DiskProfile(0.0, DEFAULT_CHUNK, DEFAULT_DEPTH, True, f"not measured: {reason}")
    return unread, 0.0, unwritten | {"disk": f"not measured: {reason}"}


def _compute(target: Target, name: str, memory: int, effort: Effort, steps: _Steps) -> ComputeRates:
    """Everything that one place computes with."""
    device, dtypes = target.device, _dtypes()
    steps.begin(f"memory of {name}")
    memory_rate = measure_reads(device, effort.cold_bytes, effort.seconds)
    copy_rate = measure_copies(device, effort.cold_bytes, effort.seconds)
    matmul, prefill, decode = {}, {}, {}
    layers: LayerRates | None = None
    for key, dtype in dtypes.items():
        steps.begin(f"matrix products of {name} in {key}")
        matmul[key] = measure_products(dtype, device, effort.shapes, effort.rows, effort.seconds, multiply=plain_linear)
        steps.begin(f"decode attention on {name} in {key}")
        decode[key] = measure_decode_attention(
            dtype, device, effort.groups, effort.sequences, seconds=effort.seconds, cold_bytes=effort.cold_bytes
        )
        steps.begin(f"prefill attention on {name} in {key}")
        prefill[key] = measure_prefill_attention(
            dtype, device, effort.prompts, rows=effort.prompt_rows, seconds=effort.seconds
        )
        if layers is None:
            steps.begin(f"layers on {name} in {key}")
            layers = measure_layers(target, dtype, effort.width, effort.layer_rows, effort.passes)
    assert layers is not None, "no dtype was measured"
    steps.begin(f"products with packed weights of {name}")
    activations = next(iter(dtypes.values()))
    packings = [own_packing(bits) for bits in BLOCK_BYTES]
    # Every other number of rows: what lies between is on a line, and a profile is waited for.
    packed = {
        packing.name: measure_packed_products(
            packing, activations, device, effort.shapes, effort.rows[::2], effort.seconds
        )
        for packing in packings
    }
    return ComputeRates(
        name=name,
        memory=memory,
        memory_rate=memory_rate,
        matmul=matmul,
        prefill_attention=prefill,
        decode_attention=decode,
        step_seconds=layers.step_seconds,
        row_rate=layers.row_rate,
        copy_rate=copy_rate,
        packed_matmul=packed,
    )


def _dtypes() -> dict[str, torch.dtype]:
    """What models are computed in; float16 where the processor multiplies it, since elsewhere nobody waits for it."""
    found = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_fp16_supported():
        found["float16"] = torch.float16
    return found


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Computes with as many threads as a run does."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sources(effort: Effort) -> dict[str, str]:
    weights = sum(out * into for out, into in effort.shapes)
    return {
        "matmul": f"torch {torch.__version__}, {num_threads()} threads: one after another, the {len(effort.shapes)} "
        f"matrices of a layer ({weights / 1e6:.0f} million weights)",
        "packed_matmul": "the same matrices in Windlass's own blocks, activations in "
        f"{next(iter(_dtypes()))}, by packed_linear",
        "decode_attention": f"our own kernel, {effort.sequences} sequences of 512 tokens, keys and values from memory",
        "prefill_attention": f"our own kernel, prompts packed to {effort.prompt_rows} tokens or more",
        "step_seconds": "a decoder layer of width 64 run by the engine",
        "row_rate": f"a decoder layer of width {effort.width} run by the engine on {effort.layer_rows} rows, less its "
        "products and attention",
        "memory_rate": f"sums over {format_bytes(effort.cold_bytes)} of float32",
    }
