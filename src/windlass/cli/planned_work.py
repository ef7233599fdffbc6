"""What `windlass plan` and `windlass cost` ask about: which model, which work, on which machine."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from windlass.cli.late import late
from windlass.cli.plan_flags import LimitFlags, MachineFlags, WorkFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.errors import UsageError
from windlass.facts.gguf_model import is_gguf
from windlass.facts.machine import Machine
from windlass.facts.machine_store import kept_machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.shape import Shape, shape_named, shapes
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits, micro_batch_width
from windlass.units import parse_size


def described(named: str | Shape, revision: str | None, dtype: str, quantization: str | None) -> ModelFacts:
    """The facts of a model, in the checkpoint's weights or in packed ones."""
    found: ModelFacts
    if quantization is None:
        found = late("jobs.model_description").describe_model(named, revision, dtype=dtype)
    else:
        found = late("jobs.packed_description").describe_packed(named, quantization, revision, dtype=dtype)
    return found


def model_or_shape(model: str | None, shape: str | None) -> str | Shape:
    """The one of them that was given. Raises UsageError."""
    if model is not None and shape is not None:
        raise UsageError(f"MODEL {model} and --shape {shape} are two models; name one of them")
    if shape is not None:
        return shape_named(shape)
    if model is not None and model.lower() in shapes() and not Path(model).is_dir():
        return shape_named(model)
    if model is None:
        raise UsageError("argument MODEL is missing; name a folder, a hub id or a shape, as in windlass plan opt-30b")
    return model


def workload(job: Any, work: WorkFlags, named: str | Shape, longest: int) -> Workload:
    """The work in a file, or in numbers, for a model of sequences up to `longest`; wrong rows are told of."""
    if work.source is None:
        return work.workload(longest)
    place = place_of(named)
    found: Workload
    found, wrong = job.workload_of(work.source, place and str(place), work.gen_len or SamplingFlags().max_tokens)
    if wrong:
        sys.stderr.write(
            f"warning: {wrong} of the rows in {work.source} cannot be answered and are left out; `windlass batch` "
            "says what is wrong with each\n"
        )
    return found


def place_of(named: str | Shape) -> Path | None:
    """Where the model lies, if it does on this machine."""
    path = Path(named) if isinstance(named, str) else None
    return path if path is not None and (path.is_dir() or is_gguf(path)) else None


def check_length(facts: ModelFacts, workload: Workload) -> None:
    """Raises UsageError where the model takes no sequence of that length."""
    longest = workload.prompt_len + workload.gen_len
    if longest > facts.max_model_len:
        raise UsageError(
            f"{workload.prompt_len} tokens of prompt and {workload.gen_len} to generate exceed the "
            f"{facts.max_model_len} that {facts.name} takes; shorten one of them"
        )


def limits_here(
    flags: LimitFlags,
    machine: MachineFlags,
    here: Machine,
    named: str | Shape,
    workload: Workload,
    dtype: str = "auto",
    kv_cache_dtype: str = "auto",
) -> Limits:
    """The limits; with what a run holds, where it would run on the host of this machine and its files lie here."""
    on_host = machine.device == "cpu"
    limits, place = flags.limits(on_host), place_of(named)
    if place is None or machine.machine is not None or (here.device is not None and not on_host):
        return limits
    width = micro_batch_width(workload, limits)
    return replace(limits, footprint=late("jobs.footprints").footprint_of(place, dtype, kv_cache_dtype, width))


def machine_here(flags: MachineFlags, limit: LimitFlags, place: Path | None) -> Machine:
    """This machine is measured where it never was, and that is said: it takes most of a minute."""
    folder = place or Path.cwd()
    memory = parse_size(limit.host_memory) if limit.host_memory is not None else None
    found = flags.found(kept_machine(folder), memory)
    if found is None:
        sys.stderr.write("this machine was never measured: it is now, once, and it takes most of a minute\n")
        found = flags.found(late("jobs.machine_profile").known_machine(folder), memory)
    assert found is not None, "a machine that was just measured is known"
    return found
