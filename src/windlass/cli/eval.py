"""`windlass eval`: how good a model is, with an error bar. A group of verbs; `ppl` is its first."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

from windlass.cli.budget_flags import BudgetFlags, ModelName
from windlass.cli.display import Display, display
from windlass.cli.late import late
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.text_flags import TextFlags
from windlass.errors import UsageError
from windlass.facts.choices import check_quantization
from windlass.facts.perplexity import Perplexity, PerplexityComparison
from windlass.facts.text_window import Windowing
from windlass.jobs.text_file import read_text

EXAMPLES = (
    "windlass eval ppl ./model --text wiki.test.raw --host-memory 4GiB",
    "windlass eval ppl ./model-int4 --text wiki.test.raw --against ./model",
    "windlass eval ppl ./model --text wiki.test.raw --context 1024 --stride 512 --json",
    "windlass eval ppl ./model --text wiki.test.raw --convention llama.cpp --windows 20",
)

_PANEL = "Text"
_OTHER = "Comparison"
# What --against-quantization calls a checkpoint as it is.
AS_IT_IS = "none"


def ppl(
    model: ModelName,
    windows: TextFlags,
    output: OutputFlags,
    budget: BudgetFlags,
    text: Annotated[
        str, typer.Option(metavar="FILE", help="A text in UTF-8; - reads standard input.", rich_help_panel=_PANEL)
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Another model on the same windows, and the difference.", rich_help_panel=_OTHER
        ),
    ] = None,
    against_quantization: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Quantization of what is compared with, {AS_IT_IS} for as it is; of MODEL without --against.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
) -> None:
    """Perplexity of a text, with its error bar, in as few passes over the weights as memory allows."""
    windowing = windows.windowing
    other = _other(model, budget, against, against_quantization)
    read = read_text(text, windowing.most_characters)
    with display(output.quiet) as screen:
        first = _scored(model, budget, read, windowing, screen)
        result: Perplexity | PerplexityComparison = first
        if other is not None:
            # Settled for the first model, so that both read the same windows.
            settled = replace(windowing, context=first.windowing.context)
            result = PerplexityComparison(first, _scored(*other, read, settled, screen))
    if output.json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
    else:
        sys.stdout.write("\n".join(result.lines()) + "\n")


def _other(
    model: str, budget: BudgetFlags, against: str | None, quantization: str | None
) -> tuple[str, BudgetFlags] | None:
    """The model to compare with, and how it is opened; None where nobody asked. Raises UsageError."""
    if against is None and quantization is None:
        return None
    if budget.plan is not None:
        raise UsageError(f"--plan {budget.plan} is for one model, and two are compared; leave it out")
    chosen = None if quantization in (None, AS_IT_IS) else quantization
    check_quantization(chosen, "--against-quantization")
    if against is None and chosen == budget.quantization:
        raise UsageError(
            f"--against-quantization {quantization} is what {model} runs with already; name another one, or give "
            "--quantization"
        )
    revision = budget.revision if against is None else None
    return against or model, replace(budget, quantization=chosen, revision=revision)


def _scored(model: str, budget: BudgetFlags, text: str, windowing: Windowing, screen: Display) -> Perplexity:
    """One model on the text; it is closed again before another takes its memory."""
    name = model if budget.quantization is None else f"{model} in {budget.quantization}"
    with opened(model, budget, screen.on_progress) as llm:
        prepared = late("jobs.perplexity").prepare(llm, text, windowing)
        screen.say(llm.plan.lines())
        found: Perplexity = prepared.score(name)
        screen.say(llm.report.lines())
        return found


VERBS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = ((ppl, EXAMPLES),)
