"""How each layer of a model attends and what it stores of a token, read from a config that has every default.

Grouped queries, sliding windows and chunks, compressed keys and values (MLA), layers that share what others stored.
"""

from collections.abc import Mapping
from typing import Any

from windlass.facts.attention_shape import AttentionShape
from windlass.facts.cache_shape import CacheShape

# Kinds of layers that do not attend to keys and values of tokens.
_NO_ATTENTION = ("linear_attention", "mamba", "mamba2", "recurrent", "conv", "short_conv", "moe", "mlp")
_HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim")
_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k",
)  # fmt: skip


def attention_shapes(config: Mapping[str, Any], layers: int) -> tuple[tuple[int, AttentionShape], ...]:
    """By layer: heads, sizes of what is attended to, and the window.

    Layers without attention are absent, and all are where the config gives no number of heads.
    """
    if not config.get("num_attention_heads"):
        return ()
    kinds = ((layer, _kind(config, layer)) for layer in range(layers))
    return tuple(
        (layer, _attention_shape(_of_layer(config, layer), kind, layer))
        for layer, kind in kinds
        if kind not in _NO_ATTENTION
    )


def cache_shapes(config: Mapping[str, Any], layers: int, latent: bool) -> tuple[tuple[int, CacheShape], ...]:
    """By layer: what it stores of a token. Layers that read another one's keys and values are absent.

    `latent` says that keys and values are stored compressed, as transformers' module of the model does it.
    """
    own = layers - int(config.get("num_kv_shared_layers") or 0)
    found = []
    for layer, attention in attention_shapes(config, layers):
        if layer >= own:
            continue
        if latent:
            shape = CacheShape(1, int(config["kv_lora_rank"]), 1, int(config["qk_rope_head_dim"]))
        else:
            heads = _key_heads(_of_layer(config, layer), _kind(config, layer), layer, attention.query_heads)
            shape = CacheShape(heads, attention.key_dim, heads, attention.value_dim)
        found.append((layer, shape))
    return tuple(found)


def _attention_shape(config: Mapping[str, Any], kind: str, layer: int) -> AttentionShape:
    key_dim, value_dim = _attended_sizes(config, kind, layer)
    return AttentionShape(_query_heads(config, layer), key_dim, value_dim, _window(config, kind))


def experts_per_token(config: Mapping[str, Any]) -> int:
    """Routed experts a token wants in a layer that has some, 0 where the config knows of none."""
    places = [config, *(config[name] for name in ("ffn_config",) if isinstance(config.get(name), dict))]
    named = [place[name] for place in places for name in _EXPERTS_PER_TOKEN if isinstance(place.get(name), int)]
    return int(named[0]) if named else 0


def _of_layer(config: Mapping[str, Any], layer: int) -> Mapping[str, Any]:
    """The config with what it says of one layer alone, or of the layers with windows; JSON has numbers as text."""
    overrides = config.get("per_layer_config")
    own = (overrides.get(layer) or overrides.get(str(layer)) or {}) if isinstance(overrides, dict) else {}
    if "sliding" in _kind(config, layer):
        own = {name: config[f"swa_{name}"] for name in _HEADS if config.get(f"swa_{name}")} | own
    return {**config, **own} if own else config


def _kind(config: Mapping[str, Any], layer: int) -> str:
    kinds = config.get("layer_types") or config.get("layers_block_type") or ()
    return str(kinds[layer]) if layer < len(kinds) else ""


def _window(config: Mapping[str, Any], kind: str) -> int | None:
    """The most tokens a layer of a kind looks at. Where a config names no kinds, its window is that of every layer."""
    if "sliding" in kind or (not kind and config.get("use_sliding_window") is not False):
        width = config.get("sliding_window")
    elif "chunked" in kind:
        width = config.get("attention_chunk_size")
    else:
        width = None
    return int(width) if width else None


def _query_heads(config: Mapping[str, Any], layer: int) -> int:
    return int(_at(config["num_attention_heads"], layer))


def _key_heads(config: Mapping[str, Any], kind: str, layer: int, query_heads: int) -> int:
    """Grouped queries share a key head; without groups there is one for each, or one for all."""
    if kind == "full_attention" and config.get("num_global_key_value_heads"):
        return int(config["num_global_key_value_heads"])
    attention = config.get("attn_config")
    grouped = config.get("num_key_value_heads") or (attention or {}).get("kv_n_heads")
    if grouped and not _is_latent(config):
        return int(_at(grouped, layer))
    return 1 if config.get("multi_query") else query_heads


def _attended_sizes(config: Mapping[str, Any], kind: str, layer: int) -> tuple[int, int]:
    """(key, value) elements of a head as attended to."""
    if _is_latent(config):
        return int(config["qk_nope_head_dim"]) + int(config["qk_rope_head_dim"]), int(config["v_head_dim"])
    if kind == "full_attention" and config.get("global_head_dim"):
        return int(config["global_head_dim"]), int(config["global_head_dim"])
    size = int(config.get("head_dim") or int(config["hidden_size"]) // _query_heads(config, layer))
    return size, int(config.get("v_head_dim") or size)


def _is_latent(config: Mapping[str, Any]) -> bool:
    return bool(config.get("kv_lora_rank")) and config.get("qk_nope_head_dim") is not None


def _at(value: Any, layer: int) -> Any:
    """An entry of a list that has one a layer, or the one value of all layers."""
    return value[layer] if isinstance(value, (list, tuple)) else value
