"""Which weights stay where, and what that leaves to stream: pure geometry of bytes, exact to within a tensor.

A run has one place where it computes and perhaps the host beside it. What is in neither comes from disk each pass.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from windlass.facts.model_facts import ModelFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.piece import BLOCK, GAP, Piece, plan_piece, round_up
from windlass.facts.plan import MemoryBill, Plan, Slice
from windlass.facts.weight_group import WeightGroup

# Slots for experts in transit, where there are experts on disk: one in use, the others arriving.
EXPERT_SLOTS = 4
# Slices that a ring has room for: one in use, the other arriving. More let the reads run further ahead.
RING_SLICES = 2

# Of a device's memory that nothing needs, the ring takes this share; the rest is for what no plan foresees.
RING_SHARE_OF_SPARE = 0.75

NOTHING: frozenset[str] = frozenset()


def always_kept(groups: Sequence[WeightGroup]) -> list[ParameterSource]:
    """What lies outside the layers is used all the time and stays where the model computes."""
    return [source for group in groups if group.kind == "outer" for source in group.sources]


def keeping_order(groups: Sequence[WeightGroup]) -> list[ParameterSource]:
    """Layers and head, a tensor of each in turn; then experts, seldom all used; then the embedding, read by rows."""
    dense = [group for group in groups if group.kind in ("layer", "head")]
    ranked = [(rank, group.sources[rank]) for group in dense for rank in range(len(group.sources))]
    ordered = [source for _, source in sorted(ranked, key=lambda item: item[0])]
    for kind in ("expert", "embedding"):
        ordered += [source for group in groups if group.kind == kind for source in group.sources]
    return list({source.key: source for source in ordered}.values())


def as_built(source: ParameterSource) -> int:
    """Bytes a source takes where it stays ready for use."""
    if source.packed and source.direct:
        return sum(round_up(fact.nbytes) for fact in source.tensors)
    return round_up(source.nbytes)


def as_read(source: ParameterSource) -> int:
    """Most bytes a source takes where it stays as the checkpoint has it, to be made ready each time it has arrived."""
    return sum(fact.nbytes + 2 * BLOCK for fact in source.tensors)


def fill(
    order: Iterable[ParameterSource], room: int, cost: Callable[[ParameterSource], int] = as_built
) -> list[ParameterSource]:
    """As many sources as fit, in order; a source that is too big is passed over for a smaller one."""
    chosen = []
    for source in order:
        if cost(source) <= room:
            chosen.append(source)
            room -= cost(source)
    return chosen


def resident_bytes(sources: Iterable[ParameterSource]) -> int:
    """What sources take where they stay; one that is shared counts once."""
    return sum(as_built(source) for source in {source.key: source for source in sources}.values())


def keys(sources: Iterable[ParameterSource]) -> frozenset[str]:
    """The keys of sources."""
    return frozenset(source.key for source in sources)


def keep(
    model: ModelFacts, fixed: MemoryBill, with_host: bool = False, ring_slices: int = RING_SLICES
) -> tuple[frozenset[str], MemoryBill]:
    """Which sources stay where the model computes, and the bill with them.

    What becomes resident leaves the ring, which frees room for more: a few rounds settle it. `with_host` says that
    the rest may come from host memory as well as from disk: the ring then holds whichever takes more.
    """
    always, order = always_kept(model.groups), keeping_order(model.groups)
    whole = replace(fixed, resident=resident_bytes([*always, *order]))
    if whole.spare >= 0:
        return keys([*always, *order]), whole

    def priced(chosen: Sequence[ParameterSource]) -> MemoryBill:
        bill = bill_of(model.groups, fixed, chosen, NOTHING, ring_slices)
        host = bill_of(model.groups, fixed, chosen, keys(order), ring_slices) if with_host else bill
        return replace(bill, ring=max(bill.ring, host.ring))

    chosen, bill = always, priced(always)
    while bill.spare > 0:
        grown = always + fill(order, bill.spare + bill.resident - resident_bytes(always))
        if resident_bytes(grown) <= bill.resident:
            break
        chosen, bill = grown, priced(grown)
    return keys(chosen), bill


def keep_share(model: ModelFacts, share: float) -> frozenset[str]:
    """The keys that hold `share` of the weights' bytes, to within the smallest tensor left out."""
    order = keeping_order(model.groups)
    return keys(fill(order, int(share * resident_bytes(order))))


def keep_only(model: ModelFacts, plan: Plan, kept: frozenset[str]) -> Plan:
    """The same plan with exactly the sources of `kept` resident, besides what must be, and the rest from disk."""
    return place(model, plan, kept, NOTHING)


def place(model: ModelFacts, plan: Plan, device: frozenset[str], host: frozenset[str]) -> Plan:
    """The same plan with the sources of `device` where the model computes, of `host` in host memory, the rest on disk.

    `host` needs a plan with a bill for the host.
    """
    order = keeping_order(model.groups)
    chosen = [*always_kept(model.groups), *(source for source in order if source.key in device)]
    beside = [source for source in order if source.key in host - device]
    there, here = keys(beside), keys(chosen)
    placed = replace(
        plan,
        resident=here,
        host_resident=there,
        slices=slices(model.groups, here, there),
        memory=bill_of(model.groups, plan.memory, chosen, there),
    )
    if plan.host is None:
        assert not there, "nothing can stay in host memory beside where the model computes: it computes there"
        return placed
    return replace(placed, host=host_bill(model, plan.host, here, beside))


def deepened(plan: Plan) -> Plan:
    """The same plan with most of what nobody needs of a device in its ring, as far as a pass can use it.

    The link then runs ahead over slices that take long to bring (a head) while those are computed that do not.
    """
    if plan.host is None:
        return plan
    bill = plan.memory
    most = sum(part.buffer_bytes for part in plan.slices) - bill.ring
    extra = max(0, min(most, int(RING_SHARE_OF_SPARE * bill.spare)))
    return replace(plan, memory=replace(bill, ring=bill.ring + extra // BLOCK * BLOCK))


def bill_of(
    groups: Sequence[WeightGroup],
    fixed: MemoryBill,
    chosen: Sequence[ParameterSource],
    host: frozenset[str] = NOTHING,
    ring_slices: int = RING_SLICES,
) -> MemoryBill:
    """The bill when `chosen` stays and the rest streams: room for the largest slices, and slots for experts."""
    kept = keys(chosen)
    parts = [part.buffer_bytes for part in slices(groups, kept, host)]
    return replace(
        fixed,
        resident=resident_bytes(chosen),
        ring=ring_slices * max(parts, default=0),
        expert_ring=EXPERT_SLOTS * _largest_expert(groups, kept),
        conversions=conversions(groups, kept),
    )


def host_bill(
    model: ModelFacts,
    fixed: MemoryBill,
    device: frozenset[str],
    beside: Sequence[ParameterSource],
    ring_slices: int = RING_SLICES,
) -> MemoryBill:
    """The host's bill when `beside` stays there on its way to the device and what is in neither comes from disk."""
    there = keys(beside)
    parts = [part.disk_buffer_bytes for part in slices(model.groups, device, there)]
    return replace(
        fixed,
        resident=sum(map(as_read, beside)),
        ring=ring_slices * max(parts, default=0),
        expert_ring=EXPERT_SLOTS * _largest_expert(model.groups, device, there),
    )


def _largest_expert(groups: Sequence[WeightGroup], kept: frozenset[str], host: frozenset[str] = NOTHING) -> int:
    """Bytes in a buffer of the largest part of an expert that is read from disk."""
    largest = 0
    for group in groups:
        if group.kind != "expert":
            continue
        away = [source.key not in kept and source.key not in host for source in group.sources]
        if all(away):
            largest = max(largest, group.buffer_bytes)
        elif any(away):
            largest = max(largest, _sizes(disk_piece(group, kept, host))[1])
    return largest


def conversions(groups: Sequence[WeightGroup], kept: frozenset[str]) -> int:
    """What casts and merges of streamed weights need while they are lent: the most of any group, twice over."""
    needs = [sum(s.nbytes for s in group.sources if not s.direct and s.key not in kept) for group in groups]
    return 2 * max(needs, default=0)


def slices(groups: Sequence[WeightGroup], kept: frozenset[str], host: frozenset[str] = NOTHING) -> tuple[Slice, ...]:
    """The slices of a pass in order: layers, then the head's parts."""
    parts = [group for group in groups if group.kind == "layer"] + [group for group in groups if group.kind == "head"]
    there = host - kept
    return tuple(_slice(group, kept, there) for group in parts)


def disk_piece(group: WeightGroup, kept: frozenset[str], host: frozenset[str] = NOTHING) -> Piece | None:
    """What is read from disk each pass for a group, or None."""
    return _piece([source for source in group.sources if source.key not in kept and source.key not in host])


def host_piece(group: WeightGroup, kept: frozenset[str], host: frozenset[str]) -> Piece | None:
    """What crosses the link each pass from host memory for a group, laid out there as it was read, or None."""
    return _piece([source for source in group.sources if source.key in host and source.key not in kept], gap=0)


def _piece(sources: Sequence[ParameterSource], gap: int = GAP) -> Piece | None:
    tensors = {fact.name: fact for source in sources for fact in source.tensors}
    return plan_piece(tuple(tensors.values()), gap) if tensors else None


def _slice(group: WeightGroup, kept: frozenset[str], host: frozenset[str]) -> Slice:
    from_disk, from_host = disk_piece(group, kept, host), host_piece(group, kept, host)
    disk_bytes, disk_buffer = _sizes(from_disk)
    host_bytes, host_buffer = _sizes(from_host)
    return Slice(
        name=group.name,
        kind=group.kind,
        resident_bytes=sum(source.nbytes for source in group.sources if source.key in kept),
        streamed_bytes=disk_bytes + host_bytes,
        disk_bytes=disk_bytes,
        buffer_bytes=disk_buffer + host_buffer,
        disk_buffer_bytes=disk_buffer,
    )


def _sizes(piece: Piece | None) -> tuple[int, int]:
    """Bytes that a piece brings, and what they take in a buffer."""
    return (sum(extent.nbytes for extent, _ in piece.extents), piece.nbytes) if piece else (0, 0)
