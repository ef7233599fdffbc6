"""Sorts the sources of a model's parameters into the groups that travel together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from windlass.facts.model_structure import ModelStructure
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.weight_group import WeightGroup

# A head many times larger than a layer is cut no finer: each part is a product of its own.
MOST_HEAD_PARTS = 16


def weight_groups(structure: ModelStructure, sources: Mapping[str, ParameterSource]) -> tuple[WeightGroup, ...]:
    """Outer weights, embedding, layers with their experts, head, in the order of a pass. `sources` are by key."""
    layer_of = {shape.name: index for index, layer in enumerate(structure.layers) for shape in layer}
    in_embedding = {shape.name for shape in structure.embedding}
    in_head = {shape.name: structure.tied.get(shape.name, shape.name) for shape in structure.head}
    dense: dict[int, list[ParameterSource]] = defaultdict(list)
    experts: dict[int, dict[int, list[ParameterSource]]] = defaultdict(lambda: defaultdict(list))
    outer, embedding = [], []
    for source in sources.values():
        name = source.parameter
        if source.expert is not None:
            experts[layer_of[name]][source.expert].append(source)
        elif name in layer_of:
            dense[layer_of[name]].append(source)
        elif name in in_embedding:
            embedding.append(source)
        elif name not in in_head:
            outer.append(source)
    head = [sources[name] for name in dict.fromkeys(in_head.values())]
    layers = _layer_groups(len(structure.layers), dense, experts)
    return (
        WeightGroup("outer", "outer", tuple(outer)),
        WeightGroup("embedding", "embedding", tuple(embedding)),
        *layers,
        *_head_groups(structure, head, largest=max(group.nbytes for group in layers)),
    )


def _head_groups(structure: ModelStructure, head: Sequence[ParameterSource], largest: int) -> list[WeightGroup]:
    """The head whole, or in parts no larger than the largest layer: what streams through a ring sets its size.

    Only a plain matrix of its own can be multiplied by parts; one tied to the embedding is one thing with it.
    """
    own = len(head) == 1 and head[0].parameter in {shape.name for shape in structure.head}
    if not (structure.plain_head and own and head[0].direct):
        return [WeightGroup("head", "head", tuple(head))]
    parts = min(MOST_HEAD_PARTS, -(-head[0].nbytes // max(1, largest)))
    if parts == 1:
        return [WeightGroup("head", "head", tuple(head))]
    rows, step = head[0].shapes[0][0], 1
    if head[0].packed:
        step = head[0].packed[0].packing.row_step if len(head[0].packed) == 1 and not head[0].packed[0].heads else 0
        if not step:
            return [WeightGroup("head", "head", tuple(head))]
    edges = [rows * part // parts // step * step for part in range(parts)] + [rows]
    return [
        WeightGroup(f"head part {part}", "head", (_rows_of(head[0], start, stop),))
        for part, (start, stop) in enumerate(pairwise(edges))
    ]


def _rows_of(source: ParameterSource, start: int, stop: int) -> ParameterSource:
    """Rows start:stop of a matrix, as a source of their own."""
    if source.packed:
        packed = source.packed[0].rows(start, stop)
        return replace(source, tensors=packed.facts, nbytes=packed.nbytes, rows=(start, stop), packed=(packed,))
    (fact,) = source.tensors
    row = fact.nbytes // fact.shape[0]
    part = replace(
        fact,
        name=f"{fact.name}[{start}:{stop}]",
        shape=(stop - start, *fact.shape[1:]),
        offset=fact.offset + start * row,
        nbytes=(stop - start) * row,
    )
    nbytes = source.nbytes * (stop - start) // fact.shape[0]
    return replace(source, tensors=(part,), nbytes=nbytes, rows=(start, stop))


def _layer_groups(
    layers: int,
    dense: Mapping[int, Sequence[ParameterSource]],
    experts: Mapping[int, Mapping[int, Sequence[ParameterSource]]],
) -> list[WeightGroup]:
    """Each layer, followed by its experts. Sources go by file position, so that what streams is one run of bytes."""
    groups = []
    for layer in range(layers):
        ordered = sorted(dense.get(layer, ()), key=lambda s: (s.tensors[0].file, s.tensors[0].offset))
        groups.append(WeightGroup(f"layer {layer}", "layer", tuple(ordered), layer))
        for expert, sources in sorted(experts.get(layer, {}).items()):
            groups.append(WeightGroup(f"layer {layer} expert {expert}", "expert", tuple(sources), layer, expert))
    return groups
