"""Sorts a model's parameters into the groups that travel together, and finds the slots each fills."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from windlass.facts.parameter_source import ParameterSource
from windlass.facts.weight_group import WeightGroup
from windlass.model.lending import Slot, slots_of
from windlass.model.parameter_map import ParameterMap, tied_names
from windlass.model.zoo import LiftedModel


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
    return (
        WeightGroup("outer", "outer", tuple(outer)),
        WeightGroup("embedding", "embedding", tuple(embedding)),
        *_layer_groups(len(lifted.layers), dense, experts),
        WeightGroup("head", "head", tuple(head)),
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
