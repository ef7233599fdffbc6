"""`windlass bench`: how fast a model runs here, every figure beside the limit that binds it."""

import json
import sys
from dataclasses import replace
from typing import Annotated

import typer

from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.display import display
from windlass.cli.exits import files_removed
from windlass.cli.flexgen_flags import FlexGenFlags
from windlass.cli.late import late
from windlass.cli.numbers import counting
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.timeline_flags import TimelineFlags
from windlass.errors import UsageError
from windlass.facts.benchmark_result import BenchmarkWork
from windlass.facts.shape import Shape, shape_named, shapes

EXAMPLES = (
    "windlass bench ./model --prompt-len 16 --gen-len 32 --num-prompts 32 --host-memory 4GiB",
    "windlass bench org/name --prompt-len 512 --gen-len 8 --rounds 5 --json",
    "windlass bench ./model --host-memory 4GiB --timeline run.json --plot run.png",
    "windlass bench --shape opt-6.7b --host-memory 8GiB --offload-dir /mnt/nvme",
    "windlass bench --shape opt-175b --quantization int4 --device cuda",
    "windlass bench --shape opt-30b --device cuda --percent 20 80 0 100 100 0 --gpu-batch-size 48 --num-gpu-batches 3",
)

_PANEL = "Work"
_DEFAULT = BenchmarkWork()


def bench(
    output: OutputFlags,
    budget: BudgetFlags,
    flexgen: FlexGenFlags,
    timeline: TimelineFlags,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A folder, a GGUF file or a Hugging Face id.", show_default=False),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"In place of MODEL: random weights in the shape of {', '.join(shapes())}.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    prompt_len: Annotated[
        int, typer.Option(parser=counting, metavar="N", help="Tokens in each prompt.", rich_help_panel=_PANEL)
    ] = _DEFAULT.prompt_len,
    gen_len: Annotated[
        int,
        typer.Option(parser=counting, metavar="N", help="Tokens generated for each prompt.", rich_help_panel=_PANEL),
    ] = _DEFAULT.gen_len,
    num_prompts: Annotated[
        int | None,
        typer.Option(
            parser=counting,
            metavar="N",
            help=f"Prompts in each round; a block of them beside FlexGen's flags, else {_DEFAULT.num_prompts}.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(parser=counting, metavar="N", help="Times to do it all, for medians.", rich_help_panel=_PANEL)
    ] = _DEFAULT.rounds,
) -> None:
    """Measure prefill and decode on prompts of random tokens."""
    named = _model_or_shape(model, shape)
    policy = flexgen.policy(budget)
    if policy is not None:
        budget = replace(budget, block_size=policy.block_size)
        num_prompts = num_prompts or policy.block_size
    work = BenchmarkWork(prompt_len, gen_len, num_prompts or _DEFAULT.num_prompts, rounds, budget.seed)
    job = late("jobs.benchmark")
    with (
        files_removed(),
        display(output.quiet) as screen,
        timeline.recording(str(named), screen) as trace,
        opened(named, budget, screen.on_progress, trace) as llm,
    ):
        job.prepare(llm, work, policy, screen.say)
        result = job.benchmark(llm, str(named), work)
    if output.json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
    else:
        sys.stdout.write("\n".join(result.lines()) + "\n")


def _model_or_shape(model: str | None, shape: str | None) -> str | Shape:
    """Exactly one of them. Raises UsageError."""
    if model is not None and shape is not None:
        raise UsageError(f"MODEL {model} and --shape {shape} are two models; name one of them")
    if shape is not None:
        return shape_named(shape)
    if model is None:
        raise UsageError(
            "argument MODEL is missing; name a folder or a hub id, or a shape as in --shape opt-6.7b; "
            "see `windlass bench --help`"
        )
    return model
