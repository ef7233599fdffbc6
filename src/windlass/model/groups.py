"""Sorts a model's parameters into the groups that travel together, and finds the slots each fills."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise

from torch import nn

from windlass.facts.parameter_source import ParameterSource
from windlass.facts.weight_group import WeightGroup
from windlass.model.lending import Slot, slots_of
from windlass.model.parameter_map import ParameterMap, tied_names
from windlass.model.zoo import LiftedModel

# A head many times larger than a layer is cut no finer: each part is a product of its own.
MOST_HEAD_PARTS = 16


def expert_parameters(lifted: LiftedModel) -> dict[str, int]:
    """Parameters whose first dimension counts experts, with that count."""
    found = {}
    for layer, (name, count) in lifted.experts.items():
        part = lifted.layers[layer]
        path = f"{part.name}.{name}"
        for attribute, parameter in part.module.get_submodule(name)._parameters.items():
            if parameter is not None and parameter.shape[0] == count:
                found[f"{path}.{attribute}"] = count
    return found


def weight_groups(lifted: LiftedModel, parameters: ParameterMap) -> tuple[WeightGroup, ...]:
    """Outer weights, embedding, layers with their experts, head, in the order of a pass."""
    layer_of = {name: index for index, part in enumerate(lifted.layers) for name in slots_of(part.module, part.name)}
    dense: dict[int, list[ParameterSource]] = defaultdict(list)
    experts: dict[tuple[int, int], list[ParameterSource]] = defaultdict(list)
    outer, embedding = [], []
    head_names = _head_names(lifted)
    for source in parameters.sources.values():
        name = source.parameter
        if source.expert is not None:
            experts[layer_of[name], source.expert].append(source)
        elif name in layer_of:
            dense[layer_of[name]].append(source)
        elif name.startswith(f"{lifted.embedding.name}."):
            embedding.append(source)
        elif name not in head_names:
            outer.append(source)
    head = [parameters.sources[name] for name in dict.fromkeys(head_names.values())]
    layers = _layer_groups(len(lifted.layers), dense, experts)
    largest = max(group.nbytes for group in layers)
    return (
        WeightGroup("outer", "outer", tuple(outer)),
        WeightGroup("embedding", "embedding", tuple(embedding)),
        *layers,
        *_head_groups(lifted, head, largest),
    )


def slots_by_source(lifted: LiftedModel, groups: Iterable[WeightGroup]) -> dict[str, list[Slot]]:
    """Which slots a source fills: its parameter's own, and those tied to it. Expert slices fill none."""
    every = all_slots(lifted)
    aliases: dict[str, list[str]] = defaultdict(list)
    for alias, name in tied_names(lifted.model).items():
        aliases[name].append(alias)
    sources = {source.key: source for group in groups for source in group.sources if source.expert is None}
    return {
        key: [every[name] for name in (source.parameter, *aliases[source.parameter]) if name in every]
        for key, source in sources.items()
    }


def all_slots(lifted: LiftedModel) -> dict[str, Slot]:
    """Every parameter and persistent buffer of the real model behind the stand-ins, by transformers' name."""
    found: dict[str, Slot] = {}
    for part in (lifted.embedding, *lifted.layers, *lifted.outer, lifted.head):
        found |= slots_of(part.module, part.name)
    return found


def _head_names(lifted: LiftedModel) -> Mapping[str, str]:
    """The head's parameter names, each with the name of the parameter it is (its own, or the one it is tied to)."""
    tied = tied_names(lifted.model)
    return {name: tied.get(name, name) for name in slots_of(lifted.head.module, lifted.head.name)}


def _head_groups(lifted: LiftedModel, head: list[ParameterSource], largest: int) -> list[WeightGroup]:
    """The head whole, or in parts no larger than the largest layer: what streams through a ring sets its size.

    Only a plain matrix of its own can be multiplied by parts; one tied to the embedding is one thing with it.
    """
    plain = type(lifted.head.module) is nn.Linear and lifted.head.module.bias is None
    own = len(head) == 1 and head[0].parameter.startswith(f"{lifted.head.name}.")
    if not (plain and own and head[0].direct):
        return [WeightGroup("head", "head", tuple(head))]
    parts = min(MOST_HEAD_PARTS, -(-head[0].nbytes // max(1, largest)))
    if parts == 1:
        return [WeightGroup("head", "head", tuple(head))]
    rows = head[0].tensors[0].shape[0]
    edges = [rows * part // parts for part in range(parts + 1)]
    return [
        WeightGroup(f"head part {part}", "head", (_rows_of(head[0], start, stop),))
        for part, (start, stop) in enumerate(pairwise(edges))
    ]


def _rows_of(source: ParameterSource, start: int, stop: int) -> ParameterSource:
    """Rows start:stop of a matrix, as a source of their own."""
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
    dense: Mapping[int, list[ParameterSource]],
    experts: Mapping[tuple[int, int], list[ParameterSource]],
) -> list[WeightGroup]:
    """Each layer, followed by its experts. Sources go by file position, so that what streams is one run of bytes."""
    groups = []
    for layer in range(layers):
        ordered = sorted(dense[layer], key=lambda s: (s.tensors[0].file, s.tensors[0].offset))
        groups.append(WeightGroup(f"layer {layer}", "layer", tuple(ordered), layer))
        for key in sorted(k for k in experts if k[0] == layer):
            name = f"layer {layer} expert {key[1]}"
            groups.append(WeightGroup(name, "expert", tuple(experts[key]), layer, key[1]))
    return groups
