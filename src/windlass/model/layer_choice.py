"""Chooses which layers of a config its twin keeps, so that every kind of layer is there, and renumbers what names them.

A config says what kind layer i is in five ways: lists with an entry a layer, lists of layer numbers, overrides keyed by
layer number, numbers that split the stack (the first k are dense) and periods (every fourth is full attention).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "decoder_layers")
LAYER_NUMBERS = re.compile(r".*(_idxs|_indices|_layer_ids)|moe_layers|mlp_only_layers")
FIRST_LAYERS = re.compile(r"first_k_dense_replace|num_dense_layers|max_window_layers|moe_layer_start_index")
LAST_LAYERS = re.compile(r"num_kv_shared_layers")
LAST_NUMBERS = re.compile(r"moe_layer_end_index")
PERIODS = re.compile(r".*(_interval|_period|_pattern|_sparse_step|_layer_step|every_n_layers|_group_size|_freq)")
# Periods that only say how a list is made when it is absent; once the list is there they decide nothing.
SPELT_OUT = {
    "sliding_window_pattern": "layer_types",
    "_sliding_window_pattern": "layer_types",
    "global_attn_every_n_layers": "layer_types",
    "layer_group_size": "layer_types",
    "full_attention_interval": "layer_types",
    "no_rope_layer_interval": "no_rope_layers",
    "interleave_moe_layer_step": "moe_layers",
}
MOST_LAYERS = 16


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """`kept[j]` is the layer of the full stack of `total` that layer j of the twin stands for; increasing."""

    total: int
    kept: tuple[int, ...]

    def renumber(self, name: str, value: Any) -> Any:
        """The twin's value of a config entry that speaks of layers; any other is returned as it is."""
        if name in LAYER_COUNTS and value == self.total:
            return len(self.kept)
        if name == "per_layer_config" and isinstance(value, Mapping):
            overrides = {int(layer): changes for layer, changes in value.items()}
            return {j: overrides[i] for j, i in enumerate(self.kept) if i in overrides}
        if isinstance(value, (list, tuple)):
            return self._renumber_list(name, list(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return self._renumber_split(name, value)
        return value

    def _renumber_list(self, name: str, value: list[Any]) -> list[Any]:
        if LAYER_NUMBERS.fullmatch(name):
            return [j for j, i in enumerate(self.kept) if i in value]
        return [value[i] for i in self.kept] if len(value) == self.total else value

    def _renumber_split(self, name: str, value: int) -> int:
        if FIRST_LAYERS.fullmatch(name):
            return sum(i < value for i in self.kept)
        if LAST_NUMBERS.fullmatch(name):
            return sum(i <= value for i in self.kept) - 1
        if LAST_LAYERS.fullmatch(name):
            return sum(i >= self.total - value for i in self.kept)
        return value


def choose_layers(values: Mapping[str, Any]) -> LayerChoice:
    """Keeps two layers of each kind, in the order of the stack; whole periods where only a period tells the kinds."""
    total = _layer_count(values)
    kinds = [repr(_kind(values, i, total)) for i in range(total)]
    period = math.lcm(*_periods(values, total))
    if period == 1:
        return LayerChoice(total, _two_of_each(kinds))
    wanted = {kind: min(2, kinds.count(kind)) for kind in set(kinds)}
    count = next(n for n in range(1, total + 1) if all(kinds[:n].count(kind) >= wanted[kind] for kind in wanted))
    return LayerChoice(total, tuple(range(min(total, MOST_LAYERS, max(count, 2 * period)))))


def _layer_count(values: Mapping[str, Any]) -> int:
    for name in LAYER_COUNTS:
        if isinstance(values.get(name), int):
            return int(values[name])
    return len(values["layer_types"])


def _kind(values: Mapping[str, Any], layer: int, total: int) -> list[Any]:
    """All that a config says of one layer alone."""
    said: list[Any] = []
    for name, value in values.items():
        if LAYER_NUMBERS.fullmatch(name) and isinstance(value, (list, tuple)):
            said.append(layer in value)
        elif isinstance(value, (list, tuple)) and len(value) == total:
            said.append(value[layer])
        elif name == "per_layer_config" and isinstance(value, Mapping):
            said.append({int(key): changes for key, changes in value.items()}.get(layer))
        elif isinstance(value, int) and not isinstance(value, bool):
            said.append(_side(name, value, layer, total))
    return said


def _side(name: str, value: int, layer: int, total: int) -> bool | None:
    """On which side of a split a layer lies, if the entry is one."""
    if FIRST_LAYERS.fullmatch(name):
        return layer < value
    if LAST_NUMBERS.fullmatch(name):
        return layer <= value
    return layer >= total - value if LAST_LAYERS.fullmatch(name) else None


def _periods(values: Mapping[str, Any], total: int) -> list[int]:
    """The periods that decide something: numbers, and lists of kinds shorter than the stack, repeated along it."""
    periods = [1]
    for name, value in values.items():
        if PERIODS.fullmatch(name) and isinstance(value, int) and 1 < value <= total:
            if values.get(SPELT_OUT.get(name, "")) is None:
                periods.append(value)
        elif name == "block_types" and isinstance(value, (list, tuple)) and len(value) < total:
            periods.append(len(value))
    return periods


def _two_of_each(kinds: list[str]) -> tuple[int, ...]:
    """One of each kind in the order met, then one of each again further on, else anywhere that is left."""
    wanted = {kind: min(2, kinds.count(kind)) for kind in kinds}
    kept: list[int] = []
    seen: set[str] = set()
    for i, kind in enumerate(kinds):
        if len(seen) == len(wanted):
            seen = set()
        if kind not in seen and sum(kinds[j] == kind for j in kept) < wanted[kind]:
            kept.append(i)
            seen.add(kind)
    for kind, count in wanted.items():
        have = sum(kinds[j] == kind for j in kept)
        spare = [i for i, other in enumerate(kinds) if other == kind and i not in kept]
        kept.extend(spare[: count - have])
    return tuple(sorted(kept))
