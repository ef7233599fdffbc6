"""FlexGen's policy made a plan, and said flag by flag: what each that was given became here."""

from dataclasses import replace

from windlass.facts.flexgen_policy import FlexGenPolicy
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.planner.by_hand import placed


def translate(model: ModelFacts, plan: Plan, policy: FlexGenPolicy) -> Plan:
    """`plan`, made for a block of the policy's size, with the policy's placement and batches.

    Raises UsageError for a placement that this run cannot have, BudgetError for one that does not fit.
    """
    batched = replace(plan, micro_batch_sequences=policy.gpu_batch_size)
    return batched if policy.placement is None else placed(model, batched, policy.placement)


def explain(policy: FlexGenPolicy, model: ModelFacts, plan: Plan) -> list[str]:
    """A line for every flag that was given, and for the batches, which have a size anyway; `plan` is as translated."""
    lines = [
        *_placement_lines(policy, model, plan),
        f"--gpu-batch-size {policy.gpu_batch_size}: a layer decodes {policy.gpu_batch_size} sequences at a time; "
        f"prompts are read {plan.micro_batch_tokens} tokens at a time, whosever they are",
        f"--num-gpu-batches {policy.num_gpu_batches}: {_block(policy, plan)}",
    ]
    if policy.cpu_cache_compute:
        lines += [f"--cpu-cache-compute: {_attention(plan)}"]
    if policy.sep_layer is not None:
        flag = "--sep-layer" if policy.sep_layer else "--no-sep-layer"
        lines += [f"{flag}: no effect, tensors are placed one by one, whatever layer they belong to"]
    if policy.overlap is not None:
        flag = "--overlap" if policy.overlap else "--no-overlap"
        lines += [f"{flag}: always on, whatever is ready moves while the rest computes"]
    return lines


def _placement_lines(policy: FlexGenPolicy, model: ModelFacts, plan: Plan) -> list[str]:
    if policy.percent is None:
        return []
    sizes = {source.key: source.nbytes for group in model.groups for source in group.sources}
    total = max(1, model.weight_bytes)
    here, there = (sum(sizes[key] for key in kept) / total for kept in (plan.resident, plan.host_resident))
    near, far, disk = (
        pages / max(1, plan.num_pages) for pages in (plan.device_pages, plan.host_pages, plan.disk_pages)
    )
    if plan.host is None:
        weights, cache = f"{here:.1%} in memory", f"{near:.1%} in memory, {disk:.1%} on disk"
    else:
        weights = f"{here:.1%} on the device, {there:.1%} in host memory"
        cache = f"{near:.1%} on the device, {far:.1%} in host memory, {disk:.1%} on disk"
    device, host = policy.percent[4:]
    return [
        f"--percent {_pair(policy, 0)}: weights {weights}, {1 - here - there:.1%} on disk",
        f"--percent {_pair(policy, 2)}: keys and values {cache}",
        f"--percent {device} {host}: no effect, hidden states stay where the model computes",
    ]


def _block(policy: FlexGenPolicy, plan: Plan) -> str:
    fewer = f"; {policy.block_size} were asked for, and there are no more prompts"
    return f"a block of {plan.block_size} sequences{'' if plan.block_size == policy.block_size else fewer}"


def _pair(policy: FlexGenPolicy, first: int) -> str:
    assert policy.percent is not None
    return f"{policy.percent[first]} {policy.percent[first + 1]}"


def _attention(plan: Plan) -> str:
    if plan.host is None:
        return "no effect, the CPU computes everything"
    if plan.far_pages:
        return "always so, the host attends to what lies in its memory and only queries and outputs travel"
    return "no effect, all keys and values lie on the device"
