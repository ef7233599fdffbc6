"""Which plan a run gets: what it asks for is measured, and then searched, or ruled where the machine is not known."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.engine.budgets import demands
from windlass.engine.opened_model import OpenedModel
from windlass.errors import BudgetError, UsageError
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.search import Demands, search

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


def still_suits(plan: Plan, before: Workload, workload: Workload) -> bool:
    """Whether a plan made for other work holds this: the longest sequence fits, and the block is not far too small."""
    if workload.scored != before.scored:
        return False
    at_once = min(workload.num_prompts, plan.block_size)
    if workload.pages(at_once, plan.page_tokens) <= plan.num_pages:
        return True
    longest = workload.pages(1, plan.page_tokens)
    grown = workload.num_prompts > 2 * before.num_prompts or longest * plan.page_tokens > 2 * before.tokens_per_sequence
    return longest <= plan.num_pages and not grown


def check_disk(opened: OpenedModel, plan: Plan, offload_dir: Path | None) -> None:
    """Whether what a plan puts on disk has a place there. Raises UsageError and StorageError."""
    if plan.disk_pages and offload_dir is None:
        raise UsageError(
            f"the plan puts {plan.disk_pages} of {plan.num_pages} pages of keys and values on disk; name a folder for "
            "them with --offload-dir"
        )
    if opened.made is not None:
        opened.made.check(opened.groups, plan)
