"""Opens the model that a verb was asked for."""

import sys
from collections.abc import Callable
from typing import Any

from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.late import late
from windlass.facts.progress import Progress
from windlass.facts.shape import Shape
from windlass.units import parse_size


def opened(
    model: str | Shape,
    budget: BudgetFlags,
    on_progress: Callable[[Progress], None],
    trace: Any = None,
    interactive_reserve: int | None = None,
) -> Any:
    """The `LLM`, to be used in a `with`; a budget beyond the machine is warned of on standard error.

    `trace` is a Trace for what each lane does, see TimelineFlags; `interactive_reserve` as `LLM` has it.
    """
    if budget.host_memory is not None:
        warning = late("jobs.budget_check").beyond_the_machine(parse_size(budget.host_memory))
        if warning is not None:
            sys.stderr.write(f"warning: {warning}\n")
    arguments = budget.as_arguments() | ({"trace": trace} if trace is not None else {})
    arguments |= {"interactive_reserve": interactive_reserve} if interactive_reserve is not None else {}
    return late("engine.llm").LLM(model, **arguments, on_progress=on_progress)
