"""A plan set by hand: the bytes lie in the shares that somebody asked for, not where the search would put them.

Exact to within one tensor of the weights and one page of the keys and values. Nothing is given up in silence: what does
not fit the budgets is refused, memory by memory.
"""

from collections.abc import Sequence
from dataclasses import replace

from windlass.errors import BudgetError, UsageError
from windlass.facts.model_facts import ModelFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.placement import Placement
from windlass.facts.plan import MemoryBill, Plan
from windlass.planner.disk_cache import disk_cache_memory
from windlass.planner.residency import always_kept, deepened, fill, keeping_order, keys, place
from windlass.planner.rule import RUN_TO_RUN, staging, whole_mib
from windlass.units import format_size

# Shares come from whole percents and from sums of them: this much is rounding.
ROUNDING = 1e-9


def placed(model: ModelFacts, plan: Plan, placement: Placement) -> Plan:
    """`plan` with its bytes in the shares of `placement`; block, passes and micro-batches stay as they are.

    What lies outside the layers is used all the time, so it stays where the model computes whatever is asked, and
    counts there. Where the host computes there is one memory: its shares are the host's. Raises UsageError for shares
    that this run cannot have, BudgetError where a memory is too small for its share.
    """
    alone = plan.host is None
    if alone:
        _refuse_a_device(placement)
    here, there = _weights(model, placement.weights_on_device, placement.weights_on_host)
    if alone:
        here, there = there, frozenset()
    by_hand = place(model, _with_cache(model, plan, placement), here, there)
    _refuse_what_does_not_fit(by_hand)
    return deepened(by_hand)


def _refuse_a_device(placement: Placement) -> None:
    if placement.weights_on_device or placement.cache_on_device:
        raise UsageError(
            f"{placement.weights_on_device:.0%} of the weights and {placement.cache_on_device:.0%} of the keys and "
            "values cannot lie on a device: this run computes on the CPU; give what shall lie in memory as shares of "
            "the host, as in --percent 0 60 0 100 100 0, or name a device with --device"
        )


def _weights(model: ModelFacts, on_device: float, on_host: float) -> tuple[frozenset[str], frozenset[str]]:
    """The keys for either memory. What the device's tensors leave of its share goes to the host's."""
    always, order = always_kept(model.groups), keeping_order(model.groups)
    total, outside = _nbytes([*always, *order]), _nbytes(always)

    def up_to(share: float) -> int:
        return round(min(1.0, share) * total) - outside

    here = fill(order, up_to(on_device), _own_bytes)
    kept = keys(here)
    rest = [source for source in order if source.key not in kept]
    there = fill(rest, up_to(on_device + on_host) - _nbytes(here), _own_bytes)
    return kept, keys(there)


def _with_cache(model: ModelFacts, plan: Plan, placement: Placement) -> Plan:
    """The plan with its pages where they are asked to be, and both bills as they are then.

    Where the host computes, its pages are those where the model computes, and one at least stays there.
    """
    page, alone = model.cache_page_bytes(plan.page_tokens), plan.host is None
    kept = round(plan.num_pages * placement.cache_on_device), round(plan.num_pages * placement.cache_on_host)
    here, host = (max(1, min(kept[1], plan.num_pages)), 0) if alone else kept
    # Shares that make a whole leave nothing over, however they are rounded.
    whole = placement.cache_on_device + placement.cache_on_host > 1 - ROUNDING
    host = plan.num_pages - here if whole and not alone else min(host, plan.num_pages - here)
    here = plan.num_pages if whole and alone else here
    on_disk = plan.num_pages - here - host
    # The plan may have had pages on disk already: what they cost is counted once.
    cost = disk_cache_memory(model, plan.page_tokens, plan.block_size) * ((on_disk > 0) - (plan.disk_pages > 0))
    cache = here * page + plan.block_size * model.open_page_bytes(plan.page_tokens)
    moved = replace(plan, host_pages=host, disk_pages=on_disk, memory=replace(plan.memory, cache=cache))
    if moved.host is None:
        return replace(moved, memory=replace(moved.memory, scratch=moved.memory.scratch + cost))
    activations = staging(model, moved) if moved.far_pages else 0
    bill = replace(moved.host, cache=host * page, activations=activations, scratch=moved.host.scratch + cost)
    return replace(moved, host=bill)


def _refuse_what_does_not_fit(plan: Plan) -> None:
    flag = "--host-memory" if plan.host is None else "--gpu-memory"
    _refuse_overdrawn(plan, plan.memory, "memory" if plan.host is None else f"memory of {plan.device}", flag)
    if plan.host is not None:
        _refuse_overdrawn(plan, plan.host, "host memory", "--host-memory")


def _refuse_overdrawn(plan: Plan, bill: MemoryBill, memory: str, flag: str) -> None:
    missing = -bill.spare
    if missing > 0:
        raise BudgetError(
            f"{plan.model} placed as asked needs {format_size(bill.budget + missing)} of {memory}, the budget is "
            f"{format_size(bill.budget)}: {format_size(missing)} are missing ({format_size(bill.resident)} weights, "
            f"{format_size(bill.ring + bill.expert_ring)} in transit, {format_size(bill.cache)} keys and values); use "
            f"{flag} {whole_mib(bill.budget + missing + RUN_TO_RUN)}, or ask for smaller shares there"
        )


def _own_bytes(source: ParameterSource) -> int:
    return source.nbytes


def _nbytes(sources: Sequence[ParameterSource]) -> int:
    return sum(source.nbytes for source in sources)
