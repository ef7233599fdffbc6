"""A machine as JSON and back: what `doctor` measures is kept so, and `--machine FILE` reads it. No torch here."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TypeVar

from windlass.errors import UsageError
from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.link import Link
from windlass.facts.machine import Machine
from windlass.facts.rate_curve import RateCurve

VERSION = 1

T = TypeVar("T")
Object = Mapping[str, object]


def machine_json(machine: Machine) -> dict[str, object]:
    """Every figure; curves are lists of [amount, rate]."""
    return {
        "version": VERSION,
        "name": machine.name,
        "measured": machine.measured,
        "cores": machine.cores,
        "host": _rates_json(machine.host),
        "disk": asdict(machine.disk),
        "disk_write": machine.disk_write,
        "process_bytes": machine.process_bytes,
        "device": _rates_json(machine.device) if machine.device else None,
        "link": asdict(machine.link) if machine.link else None,
        "sources": dict(machine.sources),
        "corrections": dict(machine.corrections),
    }


def machine_from_json(value: object) -> Machine:
    """Raises UsageError that names the field, its value and what it must be."""
    found = _object(value, "a machine profile")
    version = found.get("version")
    if version != VERSION:
        raise UsageError(
            f"version must be {VERSION}, got {version!r:.60}: the profile was written by another Windlass; measure it "
            "again with windlass doctor --fresh"
        )
    _refuse_unknown(found, {"version", *(field.name for field in fields(Machine))}, "")
    return Machine(
        name=_read(found, "name", _text),
        measured=_read(found, "measured", _text),
        cores=_read(found, "cores", _count),
        host=_read(found, "host", _rates),
        disk=_read(found, "disk", _disk),
        disk_write=_read(found, "disk_write", _rate),
        process_bytes=_read(found, "process_bytes", _size),
        device=_read(found, "device", _optional(_rates), None),
        link=_read(found, "link", _optional(_link), None),
        sources=_read(found, "sources", _mapping(_text), {}),
        corrections=_read(found, "corrections", _mapping(_factor), {}),
    )


def read_machine(file: Path) -> Machine:
    """Raises UsageError naming the file, the field and the value."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the machine profile {file} cannot be read: {error.strerror}; name another file") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the machine profile {file} is no JSON ({error}); make one with windlass doctor") from error
    try:
        return machine_from_json(value)
    except UsageError as error:
        raise UsageError(f"the machine profile {file}: {error}") from error


def write_machine(file: Path, machine: Machine) -> None:
    """Whole or not at all: a reader beside it finds the old profile or the new one. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(machine_json(machine), stream, indent=1)
            stream.write("\n")
        os.replace(beside, file)
    except BaseException:
        os.unlink(beside)
        raise


def _rates_json(rates: ComputeRates) -> dict[str, object]:
    """As asdict would, with bare lists in place of curves."""
    plain = {field.name: getattr(rates, field.name) for field in fields(ComputeRates)}
    for name in _CURVES:
        plain[name] = {dtype: [list(point) for point in curve.points] for dtype, curve in plain[name].items()}
    return plain


_CURVES = ("matmul", "packed_matmul", "prefill_attention", "decode_attention")


def _rates(name: str, value: object) -> ComputeRates:
    found = _object(value, name)
    return ComputeRates(
        name=_read(found, "name", _text, within=name),
        memory=_read(found, "memory", _size, within=name),
        memory_rate=_read(found, "memory_rate", _rate, within=name),
        matmul=_read(found, "matmul", _mapping(_curve), within=name),
        prefill_attention=_read(found, "prefill_attention", _mapping(_curve), within=name),
        decode_attention=_read(found, "decode_attention", _mapping(_curve), within=name),
        step_seconds=_read(found, "step_seconds", _rate, within=name),
        row_rate=_read(found, "row_rate", _rate, within=name),
        copy_rate=_read(found, "copy_rate", _rate, 0.0, within=name),
        packed_matmul=_read(found, "packed_matmul", _mapping(_curve), {}, within=name),
    )


def _disk(name: str, value: object) -> DiskProfile:
    found = _object(value, name)
    return DiskProfile(
        rate=_read(found, "rate", _rate, within=name),
        chunk=_read(found, "chunk", _size, within=name),
        depth=_read(found, "depth", _size, within=name),
        direct=_read(found, "direct", _truth, within=name),
        reason=_read(found, "reason", _text, within=name),
    )


def _link(name: str, value: object) -> Link:
    found = _object(value, name)
    _refuse_unknown(found, {field.name for field in fields(Link)}, f"{name}.")
    rates = {
        field.name: _read(found, field.name, _rate, within=name)
        for field in fields(Link)
        if field.default is MISSING or field.name in found
    }
    return Link(**rates)


def _curve(name: str, value: object) -> RateCurve:
    if not isinstance(value, list) or not all(isinstance(point, list) and len(point) == 2 for point in value):
        raise UsageError(f"{name} must be a list of [amount, rate], got {value!r:.60}")
    points = tuple((_count(f"{name}[{i}][0]", a), _rate(f"{name}[{i}][1]", r)) for i, (a, r) in enumerate(value))
    for (low, _), (high, _) in zip(points, points[1:], strict=False):
        if high <= low:
            raise UsageError(f"{name} must have rising amounts, got {high} after {low}")
    if not all(rate for _, rate in points):
        raise UsageError(f"{name} must have rates above 0; leave out a point that was not measured")
    return RateCurve(points)


def _read(
    found: Object, key: str, reader: Callable[[str, object], T], default: object = MISSING, within: str = ""
) -> T:
    name = f"{within}.{key}" if within else key
    if key not in found:
        if default is MISSING:
            raise UsageError(f"{name} is missing; measure the machine again with windlass doctor --fresh")
        return reader(name, default)
    return reader(name, found[key])


def _optional(reader: Callable[[str, object], T]) -> Callable[[str, object], T | None]:
    return lambda name, value: None if value is None else reader(name, value)


def _mapping(reader: Callable[[str, object], T]) -> Callable[[str, object], dict[str, T]]:
    return lambda name, value: {key: reader(f"{name}.{key}", item) for key, item in _object(value, name).items()}


def _object(value: object, name: str) -> Object:
    if not isinstance(value, dict):
        raise UsageError(f"{name} must be an object, got {value!r:.60}")
    return value


def _refuse_unknown(found: Object, known: set[str], prefix: str) -> None:
    unknown = sorted(set(found) - known)
    if unknown:
        raise UsageError(f"{prefix}{unknown[0]} is not known; remove it, or use one of {', '.join(sorted(known))}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string, got {value!r:.60}")
    return value


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, got {value!r:.60}")
    return value


def _size(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name} must be a whole number from 0 up, got {value!r:.60}")
    return value


def _count(name: str, value: object) -> int:
    if _size(name, value) == 0:
        raise UsageError(f"{name} must be a whole number from 1 up, got 0")
    return _size(name, value)


def _rate(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UsageError(f"{name} must be a number from 0 up, got {value!r:.60}")
    return float(value)


def _factor(name: str, value: object) -> float:
    if _rate(name, value) == 0:
        raise UsageError(f"{name} must be a number above 0, got {value!r:.60}")
    return _rate(name, value)
