"""What a slice asks of whoever computes it, row by row: pure counts of the model and of where a plan keeps it.

r rows of a micro-batch; E experts of a layer, k of them wanted by a row.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass.facts.attention_shape import AttentionShape
from windlass.facts.cache_shape import CacheShape
from windlass.facts.model_facts import ModelFacts
from windlass.facts.packed_numbers import PackedNumbers, packed_numbers
from windlass.facts.plan import Plan, Slice
from windlass.facts.weight_group import WeightGroup


@dataclass(frozen=True, slots=True)
class ExpertWork:
    """The routed experts of a layer: `count` of `parameters` each, `packed` of them in fewer bits, `wanted` by a row.

    Of an expert `disk_bytes` are read and `host_bytes` cross the link each time it is used, on average.
    """

    count: int
    wanted: int
    parameters: float
    disk_bytes: float
    host_bytes: float
    packed: tuple[PackedNumbers, ...] = ()

    def distinct(self, rows: float) -> float:
        """How many different experts `rows` rows want, if each row chooses at random: E (1 - (1 - k/E)^r)."""
        return self.count * (1.0 - math.pow(1.0 - min(1.0, self.wanted / self.count), rows))


@dataclass(frozen=True, slots=True)
class SliceWork:
    """One slice. `parameters` of it (experts apart) multiply every row, `projections` of them before attention; of all
    of them `packed` lie in fewer bits.

    A token leaves `cache_bytes` of keys and values here (0 for a head, and for a layer that stores nothing itself);
    `attended_bytes` are read of each token attended to, by `sharing` query heads a key head, and `rebuild_flops` spent
    on it where keys and values are kept in a smaller form (MLA). `converted_bytes` are read and written when the
    slice is lent, by casts and merges of what has streamed in. `weight_bytes` are all that is lent.
    """

    part: Slice
    weight_bytes: int
    parameters: float
    projections: float
    cache_bytes: int
    attended_bytes: int
    sharing: float
    rebuild_flops: float
    attention: AttentionShape | None
    experts: ExpertWork | None
    converted_bytes: int
    packed: tuple[PackedNumbers, ...] = ()


def slice_works(model: ModelFacts, plan: Plan) -> tuple[SliceWork, ...]:
    """The work of every slice of a plan, in order."""
    parts = [g for g in model.groups if g.kind == "layer"] + [g for g in model.groups if g.kind == "head"]
    experts: dict[int | None, list[WeightGroup]] = defaultdict(list)
    for group in model.groups:
        if group.kind == "expert":
            experts[group.layer].append(group)
    shapes, attention = dict(model.cache_shapes), dict(model.attention_shapes)
    shared = next(iter(shapes.values()), None)
    return tuple(
        _slice_work(model, plan, part, group, experts[group.layer], shapes, shared, attention)
        for part, group in zip(plan.slices, parts, strict=True)
    )


def _slice_work(
    model: ModelFacts,
    plan: Plan,
    part: Slice,
    group: WeightGroup,
    experts: Sequence[WeightGroup],
    shapes: Mapping[int, CacheShape],
    shared: CacheShape | None,
    attention: Mapping[int, AttentionShape],
) -> SliceWork:
    layer = group.layer if group.kind == "layer" else None
    own = shapes.get(layer) if layer is not None else None
    # A layer that stores nothing of its own reads what another one stored.
    read = own or (shared if layer is not None else None)
    shape = attention.get(layer) if layer is not None else None
    if shape is None and read is not None:
        shape = AttentionShape(max(1, model.hidden_size // read.key_dim), read.key_dim, read.value_dim)
    parameters = float(sum(source.numbers for source in group.sources))
    projections = 0.0
    if shape is not None and read is not None:
        queries = shape.query_heads * shape.key_dim
        projections = min(parameters, float(model.hidden_size * (queries + (own.elements if own else 0))))
    return SliceWork(
        part=part,
        weight_bytes=group.nbytes,
        parameters=parameters,
        projections=projections,
        cache_bytes=_token_bytes(model, plan, own) if own else 0,
        attended_bytes=_token_bytes(model, plan, read) if read else 0,
        sharing=shape.query_heads / read.key_heads if shape and read else 1.0,
        rebuild_flops=_rebuild_flops(shape, read),
        attention=shape,
        experts=_experts(model, plan, experts) if layer is not None else None,
        converted_bytes=sum(
            source.nbytes + sum(fact.nbytes for fact in source.tensors)
            for source in group.sources
            if not source.direct and source.key not in plan.resident
        ),
        packed=packed_numbers(group.sources),
    )


def _token_bytes(model: ModelFacts, plan: Plan, shape: CacheShape) -> int:
    """Of a token in a full page."""
    return round(model.cache_format.page_bytes(shape, plan.page_tokens, model.itemsize) / plan.page_tokens)


def _rebuild_flops(shape: AttentionShape | None, stored: CacheShape | None) -> float:
    """Of one attended token, where what is stored is not what is attended to."""
    if shape is None or stored is None or (stored.key_dim, stored.value_dim) == (shape.key_dim, shape.value_dim):
        return 0.0
    return 2.0 * stored.elements * shape.query_heads * (shape.key_dim + shape.value_dim)


def _experts(model: ModelFacts, plan: Plan, groups: Sequence[WeightGroup]) -> ExpertWork | None:
    if not groups:
        return None
    sources = [source for group in groups for source in group.sources]
    away = [source for source in sources if source.key not in plan.resident]
    on_host = sum(source.nbytes for source in away if source.key in plan.host_resident)
    read = sum(fact.nbytes for s in away if s.key not in plan.host_resident for fact in s.tensors)
    # What is read from disk crosses the link as well, where there is one.
    crossing = sum(source.nbytes for source in away) if plan.host is not None else on_host
    count = len(groups)
    total = float(sum(source.numbers for source in sources))
    packed = packed_numbers(sources, 1 / count)
    return ExpertWork(count, max(1, model.experts_per_token), total / count, read / count, crossing / count, packed)
