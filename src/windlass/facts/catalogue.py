"""Known machines: devices by name with the figures of their datasheets, and the curves that these figures imply.

The figures stand in machines.json, each with its source. Tensor peaks are dense ones with float32 accumulation; many
pages print sparse ones, which are twice as high. What of a peak is kept is an efficiency, which stands there too.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from windlass.errors import UsageError
from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.link import Link
from windlass.facts.machine import Machine
from windlass.facts.machine_file import read_machine
from windlass.facts.rate_curve import RateCurve
from windlass.units import MIB, parse_rate

_FILE = Path(__file__).with_name("machines.json")

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
GROUPS = (1, 2, 4, 8, 16)
PROMPTS = (16, 64, 256, 1024, 4096)
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
# Attention of a score: a product with a key and one with a value of this size, two FLOP each.
HEAD_DIM = 128
CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in bytes, bytes/s, flops/s or seconds, or a share without a unit; and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device as its datasheet has it. `peaks` are dense flops/s by dtype; `bus` is a name, such as "pcie4x16"."""

    name: str
    title: str
    memory: Figure
    memory_rate: Figure
    peaks: Mapping[str, Figure]
    bus: str
    bus_source: str


@cache
def catalogue() -> Mapping[str, KnownDevice]:
    """All devices by name."""
    return {entry["name"]: _known_device(entry) for entry in _content()["devices"]}


@cache
def efficiencies() -> Mapping[str, Figure]:
    """What of a peak is kept, by what it is kept of."""
    return {name: _figure(entry) for name, entry in _content()["efficiencies"].items()}


@cache
def buses() -> Mapping[str, Figure]:
    """Bytes/s of the wire in one direction, by name."""
    return {name: _figure(entry) for name, entry in _content()["buses"].items()}


def machine_named(
    name: str,
    *,
    host_memory: int | None = None,
    bus: str | None = None,
    disk_rate: float | None = None,
    here: Machine | None = None,
) -> Machine:
    """The machine of a profile file, or one with the device of that name ("cpu": none) beside a host.

    The host is that of `here`, this machine's own profile, or a generic one. `host_memory` in bytes, `bus` as
    "pcie4x8" or a rate each way as "25GB/s", and `disk_rate` in bytes/s take the place of what is known.
    Raises UsageError for a name that is not known, with the nearest, and for a file that is no profile.
    """
    machine = read_machine(Path(name)) if _is_file(name) else _with_device(name.lower(), here or generic_host())
    if bus is not None:
        if machine.device is None:
            raise UsageError(f"--bus {bus} has no effect: {machine.name} has no device; name one, as in --machine t4")
        machine = _changed(machine, "link", f"--bus {bus}: {_bus_rate(bus)[1]}", link=_link(_bus_rate(bus)[0]))
    if host_memory is not None:
        host = replace(machine.host, memory=host_memory)
        machine = _changed(machine, "host.memory", f"--host-memory {host_memory:,} bytes", host=host)
    if disk_rate is not None:
        disk = replace(machine.disk, rate=disk_rate, reason="its rate was given")
        machine = _changed(machine, "disk", f"--disk-rate {disk_rate / 1e9:.2f} GB/s", disk=disk)
    return machine


@cache
def generic_host() -> Machine:
    """An ordinary desktop without a device, for who has measured none; the figures and reasons are in machines.json."""
    entry = _content()["host"]
    figures = {name: _figure(value) for name, value in entry.items() if name != "name"}
    value = {name: figure.value for name, figure in figures.items()}
    peaks = {dtype: value[dtype] for dtype in ("bfloat16", "float32")}
    host = ComputeRates(
        name=entry["name"],
        memory=int(value["memory"]),
        memory_rate=value["memory_rate"],
        matmul={dtype: _roofline(peak, value["memory_rate"], dtype) for dtype, peak in peaks.items()},
        prefill_attention={
            dtype: RateCurve(tuple((length, peak * value["attention"]) for length in PROMPTS))
            for dtype, peak in peaks.items()
        },
        decode_attention=_decode_attention(value["memory_rate"], peaks),
        step_seconds=value["step_seconds"],
        row_rate=value["memory_rate"] / efficiencies()["row_passes"].value,
    )
    return Machine(
        name=entry["name"],
        measured="an ordinary one of the catalogue",
        cores=int(value["cores"]),
        host=host,
        disk=DiskProfile(value["disk"], 8 * MIB, 8, True, figures["disk"].source),
        disk_write=value["disk_write"],
        process_bytes=int(value["process_bytes"]),
        sources={name: figure.source for name, figure in figures.items()},
    )


def device_rates(device: KnownDevice) -> ComputeRates:
    """What the device's figures imply: products are bound by arithmetic or by reading the weights, whichever is slower.

    Prefill attention is bound by arithmetic or by moving scores.
    """
    kept = {name: figure.value for name, figure in efficiencies().items()}
    memory_rate = device.memory_rate.value * kept["memory"]
    peaks = {dtype: peak.value * kept["compute"] for dtype, peak in device.peaks.items()}
    by_scores = memory_rate / kept["score_bytes"] * 4 * HEAD_DIM
    return ComputeRates(
        name=device.title,
        memory=int(device.memory.value),
        memory_rate=memory_rate,
        matmul={dtype: _roofline(peak, memory_rate, dtype) for dtype, peak in peaks.items()},
        prefill_attention={
            dtype: RateCurve(tuple((length, min(peak, by_scores)) for length in PROMPTS))
            for dtype, peak in peaks.items()
        },
        decode_attention=_decode_attention(memory_rate, peaks),
        step_seconds=kept["step_seconds"],
        row_rate=memory_rate / kept["row_passes"],
    )


def _with_device(name: str, host: Machine) -> Machine:
    if name == CPU:
        return replace(host, device=None, link=None)
    device = catalogue().get(name)
    if device is None:
        known = (CPU, *catalogue())
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}? There are" if near else "use a profile file (.json), or one of"
        raise UsageError(f"--machine {name!r} is not known; {meant} {', '.join(known)}")
    link_rate, link_source = _bus_rate(device.bus)
    sources = {f"device.{dtype}": peak.source for dtype, peak in device.peaks.items()} | {
        "device.memory": device.memory.source,
        "device.memory_rate": device.memory_rate.source,
        "link": f"{device.bus_source}; {link_source}",
        **{f"efficiency.{kind}": f"{figure.value:g}: {figure.source}" for kind, figure in efficiencies().items()},
    }
    return replace(
        host,
        name=f"{device.title} beside {host.name}",
        measured=f"device of the catalogue, from its datasheet; host: {host.measured}",
        device=device_rates(device),
        link=_link(link_rate),
        sources=dict(host.sources) | sources,
    )


def _changed(machine: Machine, figure: str, source: str, **fields: Any) -> Machine:
    return replace(machine, sources=dict(machine.sources) | {figure: source}, **fields)


def _is_file(name: str) -> bool:
    return name.endswith(".json") or "/" in name


def _bus_rate(bus: str) -> tuple[float, str]:
    """Bytes/s each way from pinned memory, and why. Raises UsageError."""
    if bus.endswith("/s"):
        return parse_rate(bus), f"given as {bus}"
    wire = buses().get(bus.lower())
    if wire is None:
        raise UsageError(f"--bus {bus!r} is not known; use a rate as 25GB/s, or one of {', '.join(buses())}")
    kept = efficiencies()["link"]
    return wire.value * kept.value, f"{wire.source}; {kept.source}"


def _link(rate: float) -> Link:
    kept = efficiencies()
    pageable = rate * kept["pageable"].value
    return Link(rate, rate, rate * kept["both"].value, pageable, pageable)


def _roofline(peak: float, memory_rate: float, dtype: str) -> RateCurve:
    """Flops/s by rows: a weight is read once for all rows, and gives two FLOP to each."""
    return RateCurve(tuple((rows, min(peak, 2 * rows * memory_rate / ITEMSIZE[dtype])) for rows in ROWS))


def _decode_attention(memory_rate: float, peaks: Mapping[str, float]) -> dict[str, RateCurve]:
    """Bytes/s of keys and values: reading them binds, or the products of all query heads with them."""
    kept = efficiencies()["decode_attention"].value
    return {
        dtype: RateCurve(
            tuple((group, min(memory_rate * kept, peak * kept * ITEMSIZE[dtype] / (2 * group))) for group in GROUPS)
        )
        for dtype, peak in peaks.items()
    }


def _known_device(entry: Mapping[str, Any]) -> KnownDevice:
    return KnownDevice(
        name=entry["name"],
        title=entry["title"],
        memory=_figure(entry["memory"]),
        memory_rate=_figure(entry["memory_rate"]),
        peaks={dtype: _figure(entry[dtype]) for dtype in ITEMSIZE if dtype in entry},
        bus=entry["bus"]["value"],
        bus_source=entry["bus"]["source"],
    )


def _figure(entry: Mapping[str, Any]) -> Figure:
    return Figure(entry["value"], entry["source"])


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return content
