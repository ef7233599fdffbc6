"""Makes the plan of a run: measures what it asks for, and searches."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.engine.budgets import demands
from windlass.engine.opened_model import OpenedModel
from windlass.errors import BudgetError
from windlass.facts.machine import Machine
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.search import search

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

    def with_width(tokens: int | None) -> Plan:
        asked = demands(
            opened,
            workload,
            budgets.host_memory,
            budgets.gpu_memory,
            tokens,
            budgets.block_size,
            budgets.offload_dir,
        )
        return search(opened.facts, workload, replace(asked, width_fixed=tokens is not None), machine)

    if budgets.micro_batch_tokens is not None:
        return with_width(budgets.micro_batch_tokens)
    return _first_that_fits(with_width)


def _first_that_fits(with_width: Callable[[int | None], Plan]) -> Plan:
    try:
        return with_width(None)
    except BudgetError as refusal:
        for narrower in NARROWER_MICRO_BATCHES:
            with suppress(BudgetError):
                return with_width(narrower)
        raise refusal
