"""A plan that a caller brings along, in a file or as a value: used as it is, once it is known to suit this run."""

from pathlib import Path

import torch

from windlass.engine.arguments import shown
from windlass.engine.opened_model import OpenedModel
from windlass.errors import UsageError
from windlass.facts.plan import Plan
from windlass.facts.plan_file import PlanFile, read_plan, refuse_another_model, refuse_smaller_memory
from windlass.memory.process_memory import available_bytes, resident_bytes


def read_given_plan(value: object, block_size: int | None, micro_batch_tokens: int | None) -> Plan | PlanFile | None:
    """A Plan, a file that holds one, or None. Raises UsageError for anything else, and for what would be ignored."""
    if value is None:
        return None
    for flag, asked in (("--block-size", block_size), ("--micro-batch-tokens", micro_batch_tokens)):
        if asked is not None:
            raise UsageError(f"{flag} {asked} has no effect beside a plan, which has its own; leave one of them out")
    if isinstance(value, str | Path):
        return read_plan(Path(value).expanduser())
    if isinstance(value, Plan | PlanFile):
        return value
    raise UsageError(f"plan must be a Plan, such as another LLM's plan, or a file, or None; got {shown(value)}")


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
    return plan
