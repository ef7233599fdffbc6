"""Divides the budget: what stays in memory, what streams, how many sequences a block holds.

A simple rule for now, stated here once. Fixed costs come off first. If the whole model fits, it is resident and keys
and values take what is left. Otherwise the ring gets room for the two largest slices, keys and values at most half of
what remains, and every byte left keeps weights: a tensor of each layer in turn, so that all layers stream alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from windlass.errors import BudgetError
from windlass.facts.model_facts import ModelFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.piece import plan_piece, round_up
from windlass.facts.plan import MemoryBill, Plan, Slice
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.weight_group import WeightGroup
from windlass.facts.workload import Workload
from windlass.units import MIB, format_size

# Beyond this many sequences a pass is bound by compute on any machine we know.
LARGEST_BLOCK = 512
# Embedding rows in flight, sampling, and what the allocator rounds up.
FIXED_SCRATCH = 48 * MIB
# Slots for experts in transit, where there are experts on disk: one in use, the others arriving.
EXPERT_SLOTS = 4
# What interpreter and libraries hold differs by a few MiB from run to run; advice has to hold in the next one too.
RUN_TO_RUN = 16 * MIB


@dataclass(frozen=True, slots=True)
class Demands:
    """What was measured or asked for, before anything is decided. Bytes, tokens and sequences.

    `activations` is for a micro-batch of `micro_batch_tokens`; `rows_held` counts the hidden rows that the model's
    own forward keeps alive around the layers. `block_size` 0 leaves the block to the rule.
    """

    budget: int
    base: int
    activations: int
    micro_batch_tokens: int
    rows_held: float
    page_tokens: int
    device: str
    block_size: int = 0


def search(model: ModelFacts, workload: Workload, demands: Demands) -> Plan:
    """The plan for a model, a workload and a budget. Raises BudgetError, with the smallest change that would do."""
    block = min(demands.block_size or LARGEST_BLOCK, max(1, workload.num_prompts), LARGEST_BLOCK)
    while True:
        plan = _with_block(model, workload, demands, block)
        if plan.memory.spare >= 0 and (block == 1 or demands.block_size or _cache_is_modest(model, plan)):
            return plan
        if block == 1 or demands.block_size:
            raise BudgetError(_too_small(model, demands, plan, block))
        block = max(1, block * 3 // 4)


def _cache_is_modest(model: ModelFacts, plan: Plan) -> bool:
    """Keys and values may crowd out weights only up to half of what both share."""
    bill = plan.memory
    return (
        plan.streamed_bytes == 0 or bill.cache <= bill.resident + bill.spare or bill.cache <= model.weight_bytes // 20
    )


def _with_block(model: ModelFacts, workload: Workload, demands: Demands, block: int) -> Plan:
    pages_each = -(-workload.tokens_per_sequence // demands.page_tokens)
    pass_tokens = _pass_tokens(model, workload, demands, block)
    fixed = MemoryBill(
        budget=demands.budget,
        base=demands.base,
        resident=0,
        ring=0,
        expert_ring=0,
        cache=block * pages_each * demands.page_tokens * model.cache_bytes_per_token,
        row=int(pass_tokens * model.row_bytes * demands.rows_held),
        activations=demands.activations,
        scratch=FIXED_SCRATCH + 4 * 4 * model.vocab_size * block,
    )
    resident, bill = _keep(model, fixed)
    return Plan(
        model=model.name,
        device=demands.device,
        dtype=model.dtype,
        block_size=block,
        pass_tokens=pass_tokens,
        micro_batch_tokens=demands.micro_batch_tokens,
        page_tokens=demands.page_tokens,
        num_pages=block * pages_each,
        slices=slices(model.groups, resident),
        resident=resident,
        memory=bill,
    )


def _pass_tokens(model: ModelFacts, workload: Workload, demands: Demands, block: int) -> int:
    """All prompts of the block in one pass if their hidden rows stay under an eighth of the budget."""
    share = int(demands.budget / 8 / demands.rows_held / model.row_bytes)
    return max(block, min(block * workload.prompt_len, max(share, demands.micro_batch_tokens)))


def keep_only(model: ModelFacts, plan: Plan, kept: frozenset[str]) -> Plan:
    """The same plan with exactly the sources of `kept` resident, besides what must be, and the rest streaming."""
    always = [source for group in model.groups if group.kind == "outer" for source in group.sources]
    chosen = always + [source for source in _keeping_order(model.groups) if source.key in kept]
    resident = frozenset(source.key for source in chosen)
    bill = _bill(model.groups, replace(plan.memory, resident=0, ring=0, expert_ring=0), chosen)
    return replace(plan, resident=resident, slices=slices(model.groups, resident), memory=bill)


def _keep(model: ModelFacts, fixed: MemoryBill) -> tuple[frozenset[str], MemoryBill]:
    """Which sources stay. What becomes resident leaves the ring, which frees room for more: a few rounds settle it."""
    always = [source for group in model.groups if group.kind == "outer" for source in group.sources]
    order = _keeping_order(model.groups)
    whole = replace(fixed, resident=_resident_bytes(always + order))
    if whole.spare >= 0:
        return frozenset(source.key for source in always + order), whole
    chosen = always
    bill = _bill(model.groups, fixed, chosen)
    while bill.spare > 0:
        grown = always + _fill(order, bill.spare + bill.resident - _resident_bytes(always))
        if _resident_bytes(grown) <= bill.resident:
            break
        chosen, bill = grown, _bill(model.groups, fixed, grown)
    return frozenset(source.key for source in chosen), bill


def _bill(groups: Sequence[WeightGroup], fixed: MemoryBill, chosen: Sequence[ParameterSource]) -> MemoryBill:
    """The bill when `chosen` stays and the rest streams: room for the two largest slices, and slots for experts."""
    kept = frozenset(source.key for source in chosen)
    parts = [part.buffer_bytes for part in slices(groups, kept)]
    experts = [_streamed(group, kept)[1] for group in groups if group.kind == "expert"]
    return replace(
        fixed,
        resident=_resident_bytes(chosen),
        ring=2 * max(parts, default=0),
        expert_ring=EXPERT_SLOTS * max(experts, default=0),
        scratch=fixed.scratch + _conversions(groups, kept),
    )


def _keeping_order(groups: Sequence[WeightGroup]) -> list[ParameterSource]:
    """Layers and head, a tensor of each in turn; then experts, seldom all used; then the embedding, read by rows."""
    dense = [group for group in groups if group.kind in ("layer", "head")]
    ranked = [(rank, group.sources[rank]) for group in dense for rank in range(len(group.sources))]
    ordered = [source for _, source in sorted(ranked, key=lambda item: item[0])]
    for kind in ("expert", "embedding"):
        ordered += [source for group in groups if group.kind == kind for source in group.sources]
    return list({source.key: source for source in ordered}.values())


def _fill(order: Sequence[ParameterSource], room: int) -> list[ParameterSource]:
    """As many sources as fit, in order; a source that is too big is passed over for a smaller one."""
    chosen = []
    for source in order:
        if round_up(source.nbytes) <= room:
            chosen.append(source)
            room -= round_up(source.nbytes)
    return chosen


def _resident_bytes(sources: Sequence[ParameterSource]) -> int:
    return sum(round_up(source.nbytes) for source in {source.key: source for source in sources}.values())


def _conversions(groups: Sequence[WeightGroup], kept: frozenset[str]) -> int:
    """What casts and merges of streamed weights need while they are lent: the most of any group, twice over."""
    needs = [sum(s.nbytes for s in group.sources if not s.direct and s.key not in kept) for group in groups]
    return 2 * max(needs, default=0)


def slices(groups: Sequence[WeightGroup], kept: frozenset[str]) -> tuple[Slice, ...]:
    """The slices of a pass in order: layers, then the head's parts."""
    parts = [group for group in groups if group.kind == "layer"] + [group for group in groups if group.kind == "head"]
    return tuple(_slice(group, kept) for group in parts)


def _slice(group: WeightGroup, kept: frozenset[str]) -> Slice:
    streamed, buffer = _streamed(group, kept)
    resident = sum(source.nbytes for source in group.sources if source.key in kept)
    return Slice(group.name, group.kind, resident, streamed, buffer)


def _streamed(group: WeightGroup, kept: frozenset[str]) -> tuple[int, int]:
    """Bytes that come from disk for a group, and what they take in a buffer."""
    tensors = streamed_tensors(group, kept)
    if not tensors:
        return 0, 0
    piece = plan_piece(tuple(tensors.values()))
    return sum(extent.nbytes for extent, _ in piece.extents), piece.nbytes


def streamed_tensors(group: WeightGroup, kept: frozenset[str]) -> Mapping[str, TensorFact]:
    """The checkpoint tensors of a group that are not resident, by name."""
    return {fact.name: fact for source in group.sources if source.key not in kept for fact in source.tensors}


def _too_small(model: ModelFacts, demands: Demands, plan: Plan, block: int) -> str:
    missing = -plan.memory.spare
    bill = plan.memory
    changes = [f"--host-memory {_whole_mib(demands.budget + missing + RUN_TO_RUN)}"]
    if block > 1:
        changes.append(f"--block-size {block // 2}")
    if bill.cache > missing:
        changes.append("shorter prompts or a smaller --max-tokens")
    if bill.activations > missing and demands.micro_batch_tokens > 32:
        changes.append(f"--micro-batch-tokens {demands.micro_batch_tokens // 2}")
    return (
        f"{model.name} needs {format_size(demands.budget + missing)} to run with {block} sequence(s) at a time, the "
        f"budget is {format_size(demands.budget)}: {format_size(missing)} are missing "
        f"({format_size(bill.base)} interpreter and libraries, {format_size(bill.ring + bill.expert_ring)} weights in "
        f"transit, {format_size(bill.resident)} that must stay, {format_size(bill.cache)} keys and values, "
        f"{format_size(bill.row + bill.activations + bill.scratch)} activations); use {', or '.join(changes)}"
    )


def _whole_mib(nbytes: int) -> str:
    return f"{-(-nbytes // MIB)}MiB"
