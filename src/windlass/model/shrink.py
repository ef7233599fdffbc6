"""Shrinks a model's config to a tiny one of the same type, with every kind of layer and rotary setting kept.

A random instance of it is what a model type is proven on before any weight is read. Nothing here knows a family: the
rules go by the names of config entries, and what they make is built and run before it is believed.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, PreTrainedConfig

from windlass.model.layer_choice import LayerChoice, choose_layers
from windlass.model.shrunken_sizes import Sizes, measure, shrink_number

MOST_PARAMETERS = 8_000_000
# Entries that belong to the full model or to training alone, or that transformers makes from the others.
LEFT_OUT = ("model_type", "transformers_version", "_name_or_path", "dtype", "torch_dtype", "quantization_config",
            "id2label", "label2id", "auto_map", "qk_head_dim", "num_layers_per_stack")  # fmt: skip
# Heads of a state-space mixer, the size of one, and the inner width that they must multiply to.
MIXER_HEADS = (("mamba_n_heads", "mamba_d_head", "mamba_d_ssm", "mamba_expand"),
               ("num_heads", "head_dim", "intermediate_size", "expand"))  # fmt: skip
# What a building failure looks like: sizes that do not go together, in whatever words a model says so.
FAILURES = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError,
            ZeroDivisionError, ImportError, StrictDataclassError)  # fmt: skip


class CannotShrink(Exception):
    """No tiny config of this type could be made; the text says why."""


def shrink(config: PreTrainedConfig) -> PreTrainedConfig:
    """A config of the same type that builds a model of at most 8 million parameters in float32.

    Several ways of sizing are tried; the first that builds and runs is returned. Raises CannotShrink.
    """
    reasons = []
    for values in _candidates(config):
        try:
            return _tried(type(config), values)
        except FAILURES as error:
            reasons.append(f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}")
    raise CannotShrink(f"{config.model_type}: {reasons[0] if reasons else 'its config names no layers or hidden size'}")


def _candidates(config: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    full = {key: value for key, value in config.to_dict().items() if key not in LEFT_OUT}
    common = {name: full.get(own) for name, own in config.attribute_map.items()} | full
    try:
        sizes, layers = measure(common), choose_layers(common)
    except (KeyError, TypeError):
        return
    names = {own: name for name, own in config.attribute_map.items()}
    for tried in _sizings(sizes):
        yield _shrunken(full, tried, layers, names)


def _sizings(sizes: Sizes) -> Iterator[Sizes]:
    """The sizes wanted, then others for models whose sizes hang together in a way the rules do not know."""
    yield sizes
    hidden = sizes.hidden[0]
    yield replace(sizes, head_dim=(sizes.head_dim[0], min(sizes.head_dim[0], 32)), hidden=(hidden, min(hidden, 128)))
    yield replace(sizes, heads=(sizes.heads[0], min(sizes.heads[0], 8)), hidden=(hidden, min(hidden, 128)))


def _shrunken(full: Mapping[str, Any], sizes: Sizes, layers: LayerChoice, names: Mapping[str, str]) -> dict[str, Any]:
    """Walks the entries. `names` gives transformers' common name of an entry that has one of its own."""
    values: dict[str, Any] = {}
    for own, value in full.items():
        name = names.get(own, own)
        value = layers.renumber(own, copy.deepcopy(value))
        values[own] = _shrink_value(name, value, sizes)
    return values | _mixer_heads(values, sizes)


def _mixer_heads(values: Mapping[str, Any], sizes: Sizes) -> dict[str, int]:
    for heads, head_dim, inner, expand in MIXER_HEADS:
        if values.get(expand) and values.get(heads) and values.get(head_dim):
            width = values.get(inner) or int(values[expand] * sizes.hidden[1])
            return {head_dim: width // values[heads]}
    return {}


def _shrink_value(name: str, value: Any, sizes: Sizes) -> Any:
    if name == "rope_parameters" and isinstance(value, Mapping):
        return _shrink_rope(value, sizes)
    if isinstance(value, Mapping):
        return {key: _shrink_value(str(key), entry, sizes) for key, entry in value.items() if key not in LEFT_OUT}
    if isinstance(value, list):
        return [_shrink_value(name, entry, sizes) for entry in value]
    if name == "attention_multiplier" and isinstance(value, float):
        return min(value * sizes.head_dim[0] / sizes.head_dim[1], max(value, 0.25) if value < 1 else 0.25)
    return shrink_number(name, value, sizes) if type(value) is int else value


def _shrink_rope(rope: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The same kind of rotary tables for smaller heads, with the thresholds brought down."""
    shrunken: dict[str, Any] = {}
    for key, value in rope.items():
        if isinstance(value, Mapping):
            shrunken[key] = _shrink_rope(value, sizes)
        elif key in ("short_factor", "long_factor") and isinstance(value, list):
            shrunken[key] = _thinned(value, sizes.head_width(2 * len(value)) // 2)
        elif key == "mrope_section" and isinstance(value, list):
            shrunken[key] = _sections(value, sizes.head_width(2 * sum(value)) // 2)
        elif key == "partial_rotary_factor" and isinstance(value, float):
            shrunken[key] = _even_part(value, sizes.head_dim[1])
        else:
            shrunken[key] = shrink_number(key, value, sizes) if type(value) is int else value
    return shrunken


def _thinned(factors: list[float], count: int) -> list[float]:
    """`count` of the factors, evenly spaced, so that they still run from the first to the last."""
    return [factors[i * (len(factors) - 1) // max(1, count - 1)] for i in range(count)]


def _sections(sections: list[int], total: int) -> list[int]:
    """Sections in proportion, each at least one, that add up to `total`."""
    parts = [max(1, section * total // sum(sections)) for section in sections]
    parts[0] += total - sum(parts)
    return parts


def _even_part(factor: float, head_dim: int) -> float:
    """The factor itself where it rotates an even number of a head's elements, else the nearest that does."""
    return (
        factor
        if int(head_dim * factor) % 2 == 0 and int(head_dim * factor) >= 2
        else (max(2, 2 * round(head_dim * factor / 2)) / head_dim)
    )


def _tried(kind: type[PreTrainedConfig], values: Mapping[str, Any]) -> PreTrainedConfig:
    """The config, once a model of it has been built (first without memory) and has run. Raises what it raises."""
    config = kind(**copy.deepcopy(dict(values)))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
    count = sum(parameter.numel() for parameter in empty.parameters())
    if count > MOST_PARAMETERS:
        largest, shape = max(
            ((n, tuple(p.shape)) for n, p in empty.named_parameters()), key=lambda item: _product(item[1])
        )
        raise ValueError(f"its twin would have {count:,} parameters, the largest {largest} {shape}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=torch.float32, attn_implementation="eager"
        )
        model.eval()(torch.arange(1, 9)[None])
    return config


def _product(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
