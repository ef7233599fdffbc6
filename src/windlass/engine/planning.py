"""Makes the plan of a run: measures what it asks for, and searches."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from windlass.engine.budgets import demands
from windlass.engine.opened_model import OpenedModel
from windlass.engine.plan_choice import choose_plan
from windlass.errors import BudgetError
from windlass.facts.machine import Machine
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.search import Demands

# Where the usual width does not fit: less memory for activations, and a lower rate of prefill.
NARROWER_MICRO_BATCHES = (128, 32)


@dataclass(frozen=True, slots=True)
class Budgets:
    """What the caller set: bytes, sequences and tokens; None (0 for the block) leaves it to the plan."""

    host_memory: int | None
    gpu_memory: int | None
    micro_batch_tokens: int | None
    block_size: int
    offload_dir: Path | None


def make_plan(opened: OpenedModel, workload: Workload, budgets: Budgets, machine: Machine | None) -> Plan:
    """The fastest plan on `machine`, or by rule where it is not known.

    With the widest micro-batches that fit, unless a width was asked for. Raises BudgetError, of the widest.
    """

    def measured(width: int | None) -> Demands:
        limits = (budgets.host_memory, budgets.gpu_memory, width, budgets.block_size, budgets.offload_dir)
        return demands(opened, workload, *limits)

    def with_width(width: int | None) -> Plan:
        return choose_plan(opened.facts, workload, machine, measured, width, budgets.micro_batch_tokens is not None)

    try:
        return with_width(budgets.micro_batch_tokens)
    except BudgetError as refusal:
        for narrower in () if budgets.micro_batch_tokens is not None else NARROWER_MICRO_BATCHES:
            with suppress(BudgetError):
                return with_width(narrower)
        raise refusal
