"""Divides the budgets by a rule: what stays in memory, what streams, how many sequences a block holds.

What is asked for where no machine is known, and where every search begins. Fixed costs come off first. If the whole
model fits where it is computed, it is resident and keys and values take what is left. Otherwise the ring gets room for
the two largest slices, keys and values at most half of what remains, and every byte left keeps weights: a tensor of
each layer in turn, so that all layers stream alike. On a device, keys and values that have no place there go to host
memory, and so do weights; what the host has no room for comes from disk. Keys and values go to disk only where there is
no other way.
"""

from dataclasses import dataclass, replace

from windlass.errors import BudgetError
from windlass.facts.model_facts import ModelFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.plan import MemoryBill, Plan
from windlass.facts.workload import Workload
from windlass.planner.disk_cache import disk_cache_memory
from windlass.planner.residency import RING_SLICES, as_read, fill, host_bill, keep, keeping_order, keys, slices
from windlass.units import MIB, format_size

# Beyond this many sequences a pass is bound by compute on any machine we know; who asks for more gets more.
LARGEST_BLOCK = 512
# Embedding rows in flight, sampling, and what the allocator rounds up.
FIXED_SCRATCH = 48 * MIB
# Logits of a few rows at a time in the model's format and in float32, and what sums over them.
SCORING_SCRATCH = 64 * MIB
# A tile of packed weights and what unpacking it takes: 40 MiB where torch does it, next to nothing in a kernel.
PACKED_SCRATCH = 40 * MIB
# As if the offload folder had all the room there can be.
ANY_ROOM = 1 << 62
# What interpreter and libraries hold differs by a few MiB from run to run; advice has to hold in the next one too.
RUN_TO_RUN = 16 * MIB


@dataclass(frozen=True, slots=True)
class Demands:
    """What was measured or asked for, before anything is decided. Bytes, tokens and sequences.

    `activations` is for a micro-batch of `micro_batch_tokens`; `rows_held` counts the hidden rows that the model's
    own forward keeps alive around the layers. `block_size` 0 leaves the block to the rule. On a device, `budget` and
    `base` are the device's, `host_budget` and `host_base` those of the process's own memory. `offload` is the room for
    keys and values in the offload folder, 0 where none was named. `plain_row` says that the hidden row may rest on the
    host between layers. With `width_fixed` micro-batches of another width are not wanted.
    """

    budget: int
    base: int
    activations: int
    micro_batch_tokens: int
    rows_held: float
    page_tokens: int
    device: str
    block_size: int = 0
    host_budget: int | None = None
    host_base: int = 0
    offload: int = 0
    plain_row: bool = False
    width_fixed: bool = False

    @property
    def flag(self) -> str:
        """The flag that sets the budget of the memory where the model computes."""
        return "--host-memory" if self.host_budget is None else "--gpu-memory"


MORE_FOR_RING = 1.1
"""What streams from disk may grow by so much for a longer ring of packed slices."""


@dataclass(frozen=True, slots=True)
class Division:
    """How one plan divides: sequences in a block, pages of them that lie elsewhere, tokens a pass, slices in a ring.

    The pages that are in neither of the two lie where the model computes; weights get what all this leaves.
    """

    block: int
    host_pages: int = 0
    disk_pages: int = 0
    pass_tokens: int | None = None
    ring_slices: int = RING_SLICES


def rule(model: ModelFacts, workload: Workload, demands: Demands) -> Plan:
    """The plan for a model, a workload and a budget. Raises BudgetError, with the smallest change that would do."""
    block = min(demands.block_size or LARGEST_BLOCK, max(1, workload.num_prompts))
    while True:
        plan = _with_block(model, workload, demands, block)
        if fits(plan) and (block == 1 or demands.block_size or _cache_is_modest(model, plan)):
            return plan
        if block == 1 or demands.block_size:
            spilled = _spill(model, demands, plan)
            if spilled is None:
                raise BudgetError(_too_small(model, workload, demands, plan, block))
            return spilled
        block = max(1, block * 3 // 4)


def fits(plan: Plan) -> bool:
    """Whether no memory is overdrawn."""
    return plan.memory.spare >= 0 and (plan.host is None or plan.host.spare >= 0)


def _cache_is_modest(model: ModelFacts, plan: Plan) -> bool:
    """Keys and values may crowd out weights only up to half of what both share."""
    bill = plan.host_bill
    return plan.disk_bytes == 0 or bill.cache <= bill.resident + bill.spare or bill.cache <= model.weight_bytes // 20


def _with_block(model: ModelFacts, workload: Workload, demands: Demands, block: int) -> Plan:
    pages = pages_of(workload, demands, block)
    plan = divided(model, workload, demands, Division(block))
    if demands.host_budget is None and model.is_packed and plan.disk_bytes:
        # Packed slices are read in a few hundredths of a second and differ in size: with two places the disk stands
        # idle at each turn. Three made a pass 1.15 times as fast.
        longer = divided(model, workload, demands, Division(block, ring_slices=RING_SLICES + 1))
        return longer if fits(longer) and longer.disk_bytes <= MORE_FOR_RING * plan.disk_bytes else plan
    if demands.host_budget is None or (plan.streamed_bytes == 0 and plan.memory.spare >= 0):
        return plan
    room = _room_for_cache(plan) - open_bytes(model, demands, block)
    on_device = min(pages, max(0, room) // page_bytes(model, demands))
    return divided(model, workload, demands, Division(block, host_pages=pages - on_device))


def pages_of(workload: Workload, demands: Demands, block: int) -> int:
    """Pages that hold a block."""
    return workload.pages(block, demands.page_tokens)


def _room_for_cache(plan: Plan) -> int:
    """Half of what weights and keys and values share on the device, once the ring has its part."""
    return replace(plan.memory, resident=0, cache=0).spare // 2


def page_bytes(model: ModelFacts, demands: Demands) -> int:
    """Bytes of a page over all layers, 1 for a model that stores nothing."""
    return max(1, model.cache_page_bytes(demands.page_tokens))


def open_bytes(model: ModelFacts, demands: Demands, block: int) -> int:
    """Bytes that the sequences of a block take for pages that are not packed yet, over all layers."""
    return block * model.open_page_bytes(demands.page_tokens)


def divided(model: ModelFacts, workload: Workload, demands: Demands, division: Division) -> Plan:
    """The plan of a division: what is left keeps weights. It may overdraw a memory, see `fits`."""
    block, pages = division.block, pages_of(workload, demands, division.block)
    pass_tokens = division.pass_tokens or _pass_tokens(model, workload, demands, block)
    row_on_host = demands.plain_row and pass_tokens > max(block, _most_rows(model, demands, demands.budget))
    page, alone = model.cache_page_bytes(demands.page_tokens), demands.host_budget is None
    spilling = disk_cache_memory(model, demands.page_tokens, block) if division.disk_pages else 0
    fixed = MemoryBill(
        budget=demands.budget,
        base=demands.base,
        resident=0,
        ring=0,
        expert_ring=0,
        # What is not packed yet lies where the model computes, wherever the pages are that it will fill.
        cache=(pages - division.host_pages - division.disk_pages) * page + open_bytes(model, demands, block),
        # Of a row that rests on the host, the device holds two micro-batches coming and two going.
        row=int((4 * demands.micro_batch_tokens if row_on_host else pass_tokens) * model.row_bytes * demands.rows_held),
        activations=demands.activations,
        scratch=_scratch(model, workload, block) + (spilling if alone else 0),
    )
    resident, bill = keep(model, fixed, not alone, division.ring_slices)
    plan = Plan(
        model=model.name,
        device=demands.device,
        dtype=model.dtype,
        block_size=block,
        pass_tokens=pass_tokens,
        micro_batch_tokens=demands.micro_batch_tokens,
        page_tokens=demands.page_tokens,
        num_pages=pages,
        slices=slices(model.groups, resident),
        resident=resident,
        memory=bill,
        row_on_host=row_on_host,
        disk_pages=division.disk_pages,
        kv_cache_dtype=model.cache_format.name,
    )
    return plan if alone else _with_host(model, demands, plan, division, spilling)


def _scratch(model: ModelFacts, workload: Workload, block: int) -> int:
    """Bytes for the logits that a pass wants and what draws from them or sums over them, and for a tile of weights."""
    logits = max(4 * 4 * model.vocab_size * block, SCORING_SCRATCH if workload.scored else 0)
    return FIXED_SCRATCH + logits + (PACKED_SCRATCH if model.is_packed else 0)


def _with_host(model: ModelFacts, demands: Demands, plan: Plan, division: Division, spilling: int) -> Plan:
    """The plan with what the device does not hold in host memory, as far as there is room."""
    assert demands.host_budget is not None
    plan = replace(plan, host_pages=division.host_pages)
    fixed = MemoryBill(
        budget=demands.host_budget,
        base=demands.host_base,
        resident=0,
        ring=0,
        expert_ring=0,
        cache=division.host_pages * model.cache_page_bytes(demands.page_tokens),
        row=plan.pass_tokens * model.row_bytes if plan.row_on_host else 0,
        activations=staging(model, plan) if division.host_pages or division.disk_pages else 0,
        scratch=FIXED_SCRATCH + spilling,
    )
    wanted = [source for source in keeping_order(model.groups) if source.key not in plan.resident]

    def priced(beside: list[ParameterSource]) -> MemoryBill:
        return host_bill(model, fixed, plan.resident, beside, division.ring_slices)

    beside, bill = wanted, priced(wanted)
    if bill.spare < 0:
        beside, bill = [], priced([])
    while bill.spare > 0 and len(beside) < len(wanted):
        grown = fill(wanted, bill.spare + bill.resident, as_read)
        if len(grown) <= len(beside):
            break
        beside, bill = grown, priced(grown)
    there = keys(beside)
    return replace(plan, slices=slices(model.groups, plan.resident, there), host=bill, host_resident=there)


def _spill(model: ModelFacts, demands: Demands, plan: Plan) -> Plan | None:
    """The plan with as few pages of keys and values on disk as make it fit, or None where that does not help."""
    bill, page = plan.host_bill, page_bytes(model, demands)
    if plan.host is not None and plan.memory.spare < 0:
        return None
    cost = disk_cache_memory(model, plan.page_tokens, plan.block_size)
    pages = -(-(cost - bill.spare) // page)
    # Where the host computes one page at least stays with it.
    movable = plan.host_pages if plan.host is not None else plan.num_pages - 1
    if pages > movable or pages * page > demands.offload:
        return None
    bill = replace(bill, cache=bill.cache - pages * page, scratch=bill.scratch + cost)
    if plan.host is None:
        return replace(plan, memory=bill, disk_pages=pages)
    return replace(plan, host=bill, host_pages=plan.host_pages - pages, disk_pages=pages)


def staging(model: ModelFacts, plan: Plan) -> int:
    """Queries, keys and values of two micro-batches of one layer on their way between device and host, and back."""
    shapes = [shape for _, shape in model.cache_shapes]
    tokens = plan.micro_batch_tokens
    page = max((model.cache_format.page_bytes(s, plan.page_tokens, model.itemsize) for s in shapes), default=0)
    # Packed pages cross when they are full: those that prompts fill, and in decode perhaps one of every sequence.
    packed = max(-(-tokens // plan.page_tokens), min(plan.block_size, tokens)) * page
    layer = packed if model.cache_format.packs else tokens * page // plan.page_tokens
    return 2 * (layer + tokens * 8 * model.row_bytes)


def _pass_tokens(model: ModelFacts, workload: Workload, demands: Demands, block: int) -> int:
    """All prompts of the block in one pass if their hidden rows stay under an eighth of a budget they may lie in."""
    share = max(_most_rows(model, demands, demands.budget), demands.micro_batch_tokens)
    if demands.host_budget is not None and demands.plain_row:
        share = max(share, _most_rows(model, demands, demands.host_budget))
    return max(block, min(block * workload.prompt_len, share))


def _most_rows(model: ModelFacts, demands: Demands, budget: int) -> int:
    """Rows that an eighth of a budget holds."""
    return int(budget / 8 / demands.rows_held / model.row_bytes)


def _too_small(model: ModelFacts, workload: Workload, demands: Demands, plan: Plan, block: int) -> str:
    on_host = plan.memory.spare >= 0
    bill = plan.host_bill if on_host else plan.memory
    missing = -bill.spare
    flag = "--host-memory" if on_host else demands.flag
    changes = [
        f"{flag} {whole_mib(bill.budget + missing + RUN_TO_RUN)}",
        *_smaller_work(model, workload, demands, block),
    ]
    if not demands.offload and _spill(model, replace(demands, offload=ANY_ROOM), plan) is not None:
        changes.append("--offload-dir with a folder that keys and values may go to")
    where = "" if plan.host is None else " of host memory" if on_host else f" on {demands.device}"
    return (
        f"{model.name} needs {format_size(bill.budget + missing)}{where} to run with {block} sequence(s) at a time, "
        f"the budget is {format_size(bill.budget)}: {format_size(missing)} are missing "
        f"({format_size(bill.base)} interpreter and libraries, {format_size(bill.ring + bill.expert_ring)} weights in "
        f"transit, {format_size(bill.resident)} that must stay, {format_size(bill.cache)} keys and values, "
        f"{format_size(bill.row + bill.activations + bill.scratch + bill.conversions)} activations); "
        f"use {', or '.join(changes)}"
    )


def _smaller_work(model: ModelFacts, workload: Workload, demands: Demands, block: int) -> list[str]:
    """Changes of the work that have been tried and fit: fewer sequences at a time, or fewer tokens of each."""
    host = None if demands.host_budget is None else demands.host_budget - RUN_TO_RUN
    tight = replace(demands, budget=demands.budget - RUN_TO_RUN, host_budget=host)
    changes = []
    smaller = block // 2
    while smaller and not fits(_with_block(model, workload, tight, smaller)):
        smaller //= 2
    if smaller:
        changes.append(f"--block-size {smaller}")
    tokens = workload.tokens_per_sequence // 2
    while tokens and not fits(_with_block(model, _shortened(workload, tokens), tight, block)):
        tokens //= 2
    if tokens:
        changes.append(f"prompts and --max-tokens that come to {tokens} tokens together")
    return changes


def _shortened(workload: Workload, tokens: int) -> Workload:
    """Sequences of `tokens` tokens, the answer cut first."""
    prompt_len = min(workload.prompt_len, tokens)
    return replace(workload, prompt_len=prompt_len, gen_len=max(1, tokens - prompt_len))


def whole_mib(nbytes: int) -> str:
    """A size to advise, rounded up so that it is enough: `1234MiB`."""
    return f"{-(-nbytes // MIB)}MiB"
