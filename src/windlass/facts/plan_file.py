"""A plan as a file: JSON both ways, versioned, and checked when it is read back.

A plan is worth something only for the model and the memory it was made for, so the file says which model that was: its
type, format, layers and bytes (the name may differ, as when a folder was moved).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NoReturn

from windlass.errors import StorageError, UsageError
from windlass.facts.cache_format import AS_COMPUTED, NAMES
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import MemoryBill, Plan, Slice
from windlass.units import format_bytes, format_size

VERSION = 1

_AGAIN = "make it again with `windlass plan MODEL -o FILE`"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a plan depends on of its model; `name` is for people."""

    name: str
    model_type: str
    dtype: str
    layers: int
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan and the model it was made for."""

    model: ModelIdentity
    plan: Plan

    def as_dict(self) -> dict[str, object]:
        """For JSON; `parse_plan` reads it back to an equal value."""
        plan = asdict(self.plan) | {
            "resident": sorted(self.plan.resident),
            "host_resident": sorted(self.plan.host_resident),
        }
        return {"windlass_plan": VERSION, "model": asdict(self.model), "plan": plan}


def identity(model: ModelFacts) -> ModelIdentity:
    """What a plan for `model` depends on."""
    return ModelIdentity(model.name, model.model_type, model.dtype, model.num_layers, model.weight_bytes)


def write_plan(path: Path, file: PlanFile) -> None:
    """Raises StorageError."""
    try:
        path.write_text(json.dumps(file.as_dict(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the plan could not be written to {path}: {error.strerror}; name another file") from error


def read_plan(path: Path) -> PlanFile:
    """Raises UsageError for what is no plan, naming what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the plan {path} cannot be read: {error.strerror}; {_AGAIN}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no plan: it is not text; {_AGAIN}") from error
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no plan: it is not JSON ({error}); {_AGAIN}") from error
    return parse_plan(found, str(path))


def parse_plan(found: object, name: str = "plan") -> PlanFile:
    """A value as read from JSON -> the plan. `name` says in messages where it comes from. Raises UsageError."""
    whole = _Reader(name, found)
    version = whole.value("windlass_plan")
    if version != VERSION:
        _refuse(name, f"windlass_plan is {version!r:.40}, this version reads {VERSION}")
    model, plan = _Reader(f"{name}: model", whole.value("model")), _Reader(f"{name}: plan", whole.value("plan"))
    whole.refuse_others("windlass_plan", "model", "plan")
    file = PlanFile(_identity(model), _plan(plan))
    _check_sums(name, file.plan)
    return file


def refuse_another_model(file: PlanFile, model: ModelFacts) -> None:
    """Raises UsageError where the plan was made for a model that differs from `model`, with every difference."""
    made_for, mine = file.model, identity(model)
    differences = [
        f"{what} {given}, not {wanted}"
        for what, given, wanted in (
            ("type", made_for.model_type, mine.model_type),
            ("format", made_for.dtype, mine.dtype),
            ("layers", made_for.layers, mine.layers),
            ("weights", format_bytes(made_for.weight_bytes), format_bytes(mine.weight_bytes)),
        )
        if given != wanted
    ]
    if not differences and made_for.weight_bytes != mine.weight_bytes:
        differences = [f"weights {made_for.weight_bytes:,} bytes, not {mine.weight_bytes:,}"]
    if not differences:
        sources = {source.key for group in model.groups for source in group.sources}
        unknown = sorted((file.plan.resident | file.plan.host_resident) - sources)
        differences = [f"it keeps {unknown[0]!r}, which this model does not have"] if unknown else []
    parts = [part.name for part in file.plan.slices]
    names = [group.name for kind in ("layer", "head") for group in model.groups if group.kind == kind]
    if not differences and parts != names:
        differences = [f"a pass of {len(parts)} slices, not of this model's {len(names)}"]
    if not differences and file.plan.kv_cache_dtype != model.cache_format.name:
        differences = [f"keys and values in {file.plan.kv_cache_dtype}, not {model.cache_format.name}"]
    pages = file.plan.device_pages * model.cache_page_bytes(file.plan.page_tokens)
    pages += file.plan.block_size * model.open_page_bytes(file.plan.page_tokens)
    if not differences and pages > file.plan.memory.cache:
        there = f"{file.plan.memory.cache:,} bytes"
        differences = [f"{file.plan.device_pages:,} pages of keys and values, {format_size(pages)}, in {there}"]
    if differences:
        raise UsageError(f"the plan is for {made_for.name}, not for {mine.name}: {'; '.join(differences)}; {_AGAIN}")


def refuse_smaller_memory(plan: Plan, host: int | None, device: int | None) -> None:
    """Raises UsageError where a memory has fewer bytes than the plan divides. None is a memory of unknown size."""
    for what, bill, size, flag in (
        ("host memory", plan.host_bill, host, "--host-memory"),
        (f"memory of {plan.device}", plan.memory, device if plan.host is not None else None, "--gpu-memory"),
    ):
        needed = bill.budget - max(0, bill.spare)
        if size is not None and needed > size:
            raise UsageError(
                f"the plan needs {format_size(needed)} of {what}, here are {format_size(size)}: "
                f"{format_size(needed - size)} are missing; {_AGAIN} and {flag} {size // (1 << 20)}MiB"
            )


def _identity(found: "_Reader") -> ModelIdentity:
    found.refuse_others(*(field.name for field in fields(ModelIdentity)))
    return ModelIdentity(
        found.text("name"),
        found.text("model_type"),
        found.text("dtype"),
        found.whole("layers", least=1),
        found.whole("weight_bytes", least=1),
    )


def _plan(found: "_Reader") -> Plan:
    found.refuse_others(*(field.name for field in fields(Plan)))
    host, width = found.value("host"), found.value("micro_batch_sequences")
    return Plan(
        model=found.text("model"),
        device=found.text("device"),
        dtype=found.text("dtype"),
        block_size=found.whole("block_size", least=1),
        pass_tokens=found.whole("pass_tokens", least=1),
        micro_batch_tokens=found.whole("micro_batch_tokens", least=1),
        page_tokens=found.whole("page_tokens", least=1),
        num_pages=found.whole("num_pages", least=1),
        slices=tuple(_slice(_Reader(f"{found.name}.slices", each)) for each in found.items("slices")),
        resident=found.names("resident"),
        memory=_bill(_Reader(f"{found.name}.memory", found.value("memory"))),
        host=None if host is None else _bill(_Reader(f"{found.name}.host", host)),
        host_resident=found.names("host_resident"),
        host_pages=found.whole("host_pages"),
        disk_pages=found.whole("disk_pages"),
        row_on_host=found.switch("row_on_host"),
        kv_cache_dtype=_cache_format(found),
        micro_batch_sequences=None if width is None else found.whole("micro_batch_sequences", least=1),
    )


def _cache_format(found: "_Reader") -> str:
    """Plans that are older than the field keep keys and values as they are computed."""
    name = found.text("kv_cache_dtype") if found.holds("kv_cache_dtype") else AS_COMPUTED.name
    if name not in NAMES:
        _refuse(found.name, f"kv_cache_dtype is {name!r:.40}, it must be one of {', '.join(NAMES)}")
    return name


def _slice(found: "_Reader") -> Slice:
    found.refuse_others(*(field.name for field in fields(Slice)))
    kind = found.text("kind")
    if kind not in ("layer", "head"):
        _refuse(found.name, f"kind is {kind!r:.40}, it must be layer or head")
    sizes = (field.name for field in fields(Slice) if field.name not in ("name", "kind"))
    return Slice(found.text("name"), kind, **{size: found.whole(size) for size in sizes})


def _bill(found: "_Reader") -> MemoryBill:
    found.refuse_others(*(field.name for field in fields(MemoryBill)))
    return MemoryBill(**{field.name: found.whole(field.name) for field in fields(MemoryBill)})


def _check_sums(name: str, plan: Plan) -> None:
    """What the runner takes for granted of a plan."""
    for what, bill in (("memory", plan.memory), ("host", plan.host)):
        if bill is not None and bill.spare < 0:
            _refuse(name, f"{what} divides {format_size(-bill.spare)} more than its budget, {format_size(bill.budget)}")
    if plan.device_pages < 0:
        _refuse(name, f"{plan.host_pages} and {plan.disk_pages} pages lie elsewhere, and there are {plan.num_pages}")
    if plan.host is None and (plan.host_pages or plan.host_resident or plan.row_on_host):
        _refuse(name, "something rests on the host beside the device, and there is no bill for the host")
    if both := sorted(plan.resident & plan.host_resident):
        _refuse(name, f"{both[0]!r} stays on the device and on the host")
    if not plan.slices:
        _refuse(name, "slices is empty")
    for part in plan.slices:
        if part.disk_bytes > part.streamed_bytes or (plan.host is None and part.disk_bytes < part.streamed_bytes):
            _refuse(name, f"{part.name} streams {part.streamed_bytes:,} bytes, {part.disk_bytes:,} of them from disk")
        if part.disk_buffer_bytes > plan.host_bill.ring or part.buffer_bytes > plan.memory.ring:
            _refuse(name, f"{part.name} does not fit the ring that it passes through")


@dataclass(frozen=True, slots=True)
class _Reader:
    """The fields of one JSON object; every refusal names the field, what it holds and what it may hold."""

    name: str
    found: object

    def value(self, field: str) -> object:
        if not isinstance(self.found, Mapping):
            _refuse(self.name, f"it is {self.found!r:.40}, expected an object")
        if field not in self.found:
            _refuse(self.name, f"{field} is missing")
        return self.found[field]

    def holds(self, field: str) -> bool:
        return isinstance(self.found, Mapping) and field in self.found

    def refuse_others(self, *known: str) -> None:
        others = sorted(set(self.found) - set(known)) if isinstance(self.found, Mapping) else []
        if others:
            _refuse(self.name, f"{others[0]!r:.60} is not known")

    def text(self, field: str) -> str:
        value = self.value(field)
        if not isinstance(value, str):
            _refuse(self.name, f"{field} is {value!r:.40}, expected a text")
        return value

    def whole(self, field: str, least: int = 0) -> int:
        value = self.value(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            _refuse(self.name, f"{field} is {value!r:.40}, expected a whole number from {least}")
        return value

    def switch(self, field: str) -> bool:
        value = self.value(field)
        if not isinstance(value, bool):
            _refuse(self.name, f"{field} is {value!r:.40}, expected true or false")
        return value

    def items(self, field: str) -> list[object]:
        value = self.value(field)
        if not isinstance(value, list):
            _refuse(self.name, f"{field} is {value!r:.40}, expected a list")
        return value

    def names(self, field: str) -> frozenset[str]:
        names = [item for item in self.items(field) if isinstance(item, str)]
        if len(set(names)) != len(self.items(field)):
            _refuse(self.name, f"{field} must be a list of names, each once")
        return frozenset(names)


def _refuse(name: str, flaw: str) -> NoReturn:
    raise UsageError(f"{name} is no plan that can be run: {flaw}; {_AGAIN}")
