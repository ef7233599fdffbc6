"""Which plan a run gets: the search's where the machine is known, the rule's where it is not."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from windlass.errors import BudgetError
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.search import Demands, search


def choose_plan(
    model: ModelFacts,
    workload: Workload,
    machine: Machine | None,
    measured: Callable[[int | None], Demands],
    width: int | None,
    width_fixed: bool,
) -> Plan:
    """The plan for micro-batches of `width`, or of the usual one for None. Raises BudgetError.

    `measured` rehearses micro-batches of a width. The search may find another one better as far as activations grow
    with it; before that is relied on, it is rehearsed.
    """
    asked = replace(measured(width), width_fixed=width_fixed)
    plan = search(model, workload, asked, machine)
    if plan.micro_batch_tokens == asked.micro_batch_tokens:
        return plan
    with suppress(BudgetError):
        return search(model, workload, replace(measured(plan.micro_batch_tokens), width_fixed=True), machine)
    return search(model, workload, replace(asked, width_fixed=True), machine)
