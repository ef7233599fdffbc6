"""A plan that a caller brings along, in a file or as a value: used as it is, once it is known to suit this run."""

from dataclasses import replace
from pathlib import Path

import torch

from windlass.engine.arguments import shown
from windlass.engine.opened_model import OpenedModel
from windlass.errors import BudgetError, UsageError
from windlass.facts.cache_format import CacheFormat, cache_format
from windlass.facts.plan import Plan
from windlass.facts.plan_file import PlanFile, read_plan, refuse_another_model, refuse_smaller_memory
from windlass.facts.workload import Workload
from windlass.memory.process_memory import available_bytes, resident_bytes
from windlass.units import MIB, format_size


def read_given_plan(
    value: object, block_size: int | None, micro_batch_tokens: int | None, kv_cache_dtype: object
) -> tuple[Plan | PlanFile | None, CacheFormat]:
    """A Plan, a file that holds one, or None; and how keys and values are kept, which a plan says too.

    Raises UsageError for anything else, and for what would be ignored.
    """
    given = None if value is None else _given(value, block_size, micro_batch_tokens)
    return given, _cache_format(given, kv_cache_dtype)


def _given(value: object, block_size: int | None, micro_batch_tokens: int | None) -> Plan | PlanFile:
    for flag, asked in (("--block-size", block_size), ("--micro-batch-tokens", micro_batch_tokens)):
        if asked is not None:
            raise UsageError(f"{flag} {asked} has no effect beside a plan, which has its own; leave one of them out")
    if isinstance(value, str | Path):
        return read_plan(Path(value).expanduser())
    if isinstance(value, Plan | PlanFile):
        return value
    raise UsageError(f"plan must be a Plan, such as another LLM's plan, or a file, or None; got {shown(value)}")


def _cache_format(given: Plan | PlanFile | None, asked: object) -> CacheFormat:
    """How keys and values are kept: as `asked`, or for "auto" as the plan has it. Raises UsageError for another."""
    wanted = cache_format(asked)
    if given is None:
        return wanted
    planned = cache_format((given.plan if isinstance(given, PlanFile) else given).kv_cache_dtype)
    if wanted.packs and wanted != planned:
        raise UsageError(
            f"the plan keeps keys and values in {planned.name}, kv_cache_dtype is {wanted.name}; leave it out, or "
            f"make the plan again with `windlass plan MODEL --kv-cache-dtype {wanted.name} -o FILE`"
        )
    return planned


def checked_plan(
    given: Plan | PlanFile | None, opened: OpenedModel, host_memory: int | None, gpu_memory: int | None
) -> Plan | None:
    """The plan, which was made for this model, kind of device and no more memory. Raises UsageError."""
    if given is None:
        return None
    plan = given.plan if isinstance(given, PlanFile) else given
    if isinstance(given, PlanFile):
        refuse_another_model(given, opened.facts)
    if (plan.host is not None) != opened.target.beside_host:
        raise UsageError(
            f"the plan is for {plan.device}, this run computes on {opened.target.name}; name its device with --device, "
            "or make a plan for this one"
        )
    host = resident_bytes() + available_bytes()
    device = gpu_memory
    if opened.target.beside_host and opened.target.simulated is None:
        _, total = torch.cuda.mem_get_info(opened.device)
        device = min(gpu_memory or total, total)
    refuse_smaller_memory(plan, min(host_memory or host, host), device)
    plan = _within(plan, host_memory)
    if host_memory is not None:
        _refuse_heavier_process(plan, resident_bytes())
    return plan


def _refuse_heavier_process(plan: Plan, held: int) -> None:
    """A plan made without loading supposes what the interpreter takes. Raises BudgetError where it takes too much more.

    `held` is what this process takes, with the model open and no weight read.
    """
    bill = plan.host_bill
    beyond = held - bill.base - bill.spare
    if beyond > 0:
        raise BudgetError(
            f"the plan counts {format_size(bill.base)} for interpreter and libraries and leaves "
            f"{format_size(bill.spare)} spare, but this process holds {format_size(held)} before any weight: "
            f"{format_size(beyond)} too much for the budget of {format_size(bill.budget)}; make the plan again for "
            f"--host-memory {(bill.budget - beyond) // MIB}MiB, or run without it"
        )


def _within(plan: Plan, host_memory: int | None) -> Plan:
    """The plan with no larger budget than the run was given: what it needs fits, what it leaves spare is less."""
    if host_memory is None or host_memory >= plan.host_bill.budget:
        return plan
    smaller = replace(plan.host_bill, budget=host_memory)
    return replace(plan, memory=smaller) if plan.host is None else replace(plan, host=smaller)


def refuse_longer_work(plan: Plan, workload: Workload) -> None:
    """Raises UsageError where not even one sequence of the work has room among the plan's keys and values."""
    room = plan.num_pages * plan.page_tokens
    if workload.tokens_per_sequence > room:
        raise UsageError(
            f"the plan holds keys and values of {room:,} tokens, a prompt of {workload.prompt_len:,} and its answer of "
            f"{workload.gen_len:,} take {workload.tokens_per_sequence:,}; ask for shorter answers, or make the plan "
            f"again for this work with `windlass plan MODEL -o FILE`"
        )
