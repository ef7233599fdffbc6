"""`windlass bench`: how fast a model runs here, every figure beside the limit that binds it."""

import json
import sys
from typing import Annotated

import typer

from windlass.cli.budget_flags import BudgetFlags, ModelName
from windlass.cli.display import display
from windlass.cli.late import late
from windlass.cli.numbers import counting
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.facts.benchmark_result import BenchmarkWork

EXAMPLES = (
    "windlass bench ./model --prompt-len 16 --gen-len 32 --num-prompts 32 --host-memory 4GiB",
    "windlass bench org/name --prompt-len 512 --gen-len 8 --rounds 5 --json",
)

_PANEL = "Work"
_DEFAULT = BenchmarkWork()


def bench(
    model: ModelName,
    output: OutputFlags,
    budget: BudgetFlags,
    prompt_len: Annotated[
        int, typer.Option(parser=counting, metavar="N", help="Tokens in each prompt.", rich_help_panel=_PANEL)
    ] = _DEFAULT.prompt_len,
    gen_len: Annotated[
        int,
        typer.Option(parser=counting, metavar="N", help="Tokens generated for each prompt.", rich_help_panel=_PANEL),
    ] = _DEFAULT.gen_len,
    num_prompts: Annotated[
        int, typer.Option(parser=counting, metavar="N", help="Prompts in each round.", rich_help_panel=_PANEL)
    ] = _DEFAULT.num_prompts,
    rounds: Annotated[
        int, typer.Option(parser=counting, metavar="N", help="Times to do it all, for medians.", rich_help_panel=_PANEL)
    ] = _DEFAULT.rounds,
) -> None:
    """Measure prefill and decode on prompts of random tokens."""
    work = BenchmarkWork(prompt_len, gen_len, num_prompts, rounds, budget.seed)
    job = late("jobs.benchmark")
    with (
        display(output.quiet) as screen,
        opened(model, budget, screen.on_progress) as llm,
    ):
        screen.say(job.prepare(llm, work).lines())
        result = job.benchmark(llm, model, work)
    if output.json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
    else:
        sys.stdout.write("\n".join(result.lines()) + "\n")
