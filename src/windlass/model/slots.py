"""Finds the slots of a lifted model that each source of weights fills."""

from collections import defaultdict
from collections.abc import Iterable

from windlass.facts.weight_group import WeightGroup
from windlass.model.lending import Slot, slots_of
from windlass.model.parameter_map import tied_names
from windlass.model.zoo import LiftedModel


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
