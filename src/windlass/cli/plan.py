"""`windlass plan`: where every byte will live, how fast it will go, what binds it; nothing is loaded."""

import json
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from windlass.cli.late import late
from windlass.cli.output_flags import AsJson
from windlass.cli.plan_flags import LimitFlags, MachineFlags, WorkFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.cli.timeline_flags import TimelineFlags
from windlass.errors import UsageError
from windlass.facts.cache_format import cache_format
from windlass.facts.choices import check_quantization
from windlass.facts.gguf_model import is_gguf
from windlass.facts.machine import Machine
from windlass.facts.machine_store import kept_machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan_file import write_plan
from windlass.facts.shape import Shape, shape_named, shapes
from windlass.facts.workload import Workload
from windlass.jobs.timeline_file import add_to_timeline
from windlass.planner.timeline import FORECAST
from windlass.units import parse_size

EXAMPLES = (
    "windlass plan ./model --prompt-len 512 --gen-len 64 --num-prompts 1000 --host-memory 16GiB",
    "windlass plan opt-175b --machine rtx3090 --host-memory 128GiB --num-prompts 1000 --disk-room 1TiB",
    "windlass plan ./model -i prompts.jsonl --finish-by 08:00 -o plan.json",
    "windlass plan ./model --quantization int4 --host-memory 8GiB",
    "windlass plan ./model --timeline timeline.json --plot plan.png",
)


def plan(
    work: WorkFlags,
    machine: MachineFlags,
    limit: LimitFlags,
    drawing: TimelineFlags,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A folder, a GGUF file, a hub id or a shape's name.", show_default=False),
    ] = None,
    shape: Annotated[str | None, typer.Option(metavar="NAME", help=f"A shape: {', '.join(shapes())}.")] = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="auto (as the checkpoint), bfloat16, float16.")] = "auto",
    kv_cache_dtype: Annotated[
        str, typer.Option(metavar="NAME", help="Keys and values in auto (the dtype of the model), int8 or int4.")
    ] = "auto",
    revision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a Hugging Face id.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(metavar="NAME", help="Plan for weights packed as int4 or int8.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the plan, for --plan of other verbs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plan a job before it is run: placement, forecast, what binds it and what would help."""
    named = _model_or_shape(model, shape)
    if revision is not None and isinstance(named, Shape):
        raise UsageError(f"--revision {revision} has no effect: the shape {named} is made up; leave it out")
    seconds = limit.seconds(datetime.now().astimezone())
    drawing.check()
    check_quantization(quantization)
    kept_as = cache_format(kv_cache_dtype)
    facts = replace(_described(named, revision, dtype, quantization), cache_format=kept_as)
    job = late("jobs.planning")
    workload = _workload(job, work, named, facts.max_model_len)
    _check_length(facts, workload)
    limits = limit.limits(machine.device == "cpu")
    found = job.planned(facts, workload, _machine(machine, limit, named), limits, seconds, limit.formats)
    if target is not None:
        write_plan(target, found.file)
    _draw(drawing, found, str(named))
    sys.stdout.write(json.dumps(found.as_dict()) + "\n" if as_json else "\n".join(found.lines()) + "\n")


def _described(named: str | Shape, revision: str | None, dtype: str, quantization: str | None) -> ModelFacts:
    found: ModelFacts
    if quantization is None:
        found = late("jobs.model_description").describe_model(named, revision, dtype=dtype)
    else:
        found = late("jobs.packed_description").describe_packed(named, quantization, revision, dtype=dtype)
    return found


def _model_or_shape(model: str | None, shape: str | None) -> str | Shape:
    """Exactly one of them. Raises UsageError."""
    if model is not None and shape is not None:
        raise UsageError(f"MODEL {model} and --shape {shape} are two models; name one of them")
    if shape is not None:
        return shape_named(shape)
    if model is not None and model.lower() in shapes() and not Path(model).is_dir():
        return shape_named(model)
    if model is None:
        raise UsageError("argument MODEL is missing; name a folder, a hub id or a shape, as in windlass plan opt-30b")
    return model


def _workload(job: Any, work: WorkFlags, named: str | Shape, longest: int) -> Workload:
    if work.source is None:
        return work.workload(longest)
    place = _place(named)
    found: Workload
    found, wrong = job.workload_of(work.source, place and str(place), work.gen_len or SamplingFlags().max_tokens)
    if wrong:
        sys.stderr.write(
            f"warning: {wrong} of the rows in {work.source} cannot be answered and are left out; `windlass batch` "
            "says what is wrong with each\n"
        )
    return found


def _place(named: str | Shape) -> Path | None:
    """Where the model lies, if it does on this machine."""
    path = Path(named) if isinstance(named, str) else None
    return path if path is not None and (path.is_dir() or is_gguf(path)) else None


def _check_length(facts: ModelFacts, workload: Workload) -> None:
    longest = workload.prompt_len + workload.gen_len
    if longest > facts.max_model_len:
        raise UsageError(
            f"{workload.prompt_len} tokens of prompt and {workload.gen_len} to generate exceed the "
            f"{facts.max_model_len} that {facts.name} takes; shorten one of them"
        )


def _machine(flags: MachineFlags, limit: LimitFlags, named: str | Shape) -> Machine:
    """This machine is measured where it never was, and that is said: it takes most of a minute."""
    folder = _place(named) or Path.cwd()
    memory = parse_size(limit.host_memory) if limit.host_memory is not None else None
    found = flags.found(kept_machine(folder), memory)
    if found is None:
        sys.stderr.write("this machine was never measured: it is now, once, and it takes most of a minute\n")
        found = flags.found(late("jobs.machine_profile").known_machine(folder), memory)
    assert found is not None, "a machine that was just measured is known"
    return found


def _draw(drawing: TimelineFlags, found: Any, model: str) -> None:
    """The forecast of the pipeline as a trace and as a picture, where they are wanted."""
    if drawing.timeline is None and drawing.plot is None:
        return
    spans = found.timeline()
    timeline = {FORECAST: spans}
    if drawing.timeline is not None:
        timeline = add_to_timeline(drawing.timeline, FORECAST, spans)
    if drawing.plot is not None:
        late("jobs.timeline_picture").draw_timeline(timeline, model, drawing.plot)
