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
from windlass.cli.planned_work import (
    check_length,
    described,
    limits_here,
    machine_here,
    model_or_shape,
    place_of,
    workload,
)
from windlass.cli.timeline_flags import TimelineFlags
from windlass.errors import UsageError
from windlass.facts.cache_format import cache_format
from windlass.facts.choices import check_quantization
from windlass.facts.plan_file import write_plan
from windlass.facts.shape import Shape, shapes
from windlass.jobs.timeline_file import add_to_timeline
from windlass.planner.timeline import FORECAST

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
    named = model_or_shape(model, shape)
    if revision is not None and isinstance(named, Shape):
        raise UsageError(f"--revision {revision} has no effect: the shape {named} is made up; leave it out")
    seconds = limit.seconds(datetime.now().astimezone())
    drawing.check()
    check_quantization(quantization)
    kept_as = cache_format(kv_cache_dtype)
    facts = replace(described(named, revision, dtype, quantization), cache_format=kept_as)
    job = late("jobs.planning")
    asked = workload(job, work, named, facts.max_model_len)
    check_length(facts, asked)
    here = machine_here(machine, limit, place_of(named))
    limits = limits_here(limit, machine, here, named, asked, dtype, kv_cache_dtype)
    found = job.planned(facts, asked, here, limits, seconds, limit.formats)
    if target is not None:
        write_plan(target, found.file)
    _draw(drawing, found, str(named))
    sys.stdout.write(json.dumps(found.as_dict()) + "\n" if as_json else "\n".join(found.lines()) + "\n")


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
