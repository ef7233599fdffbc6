"""What a GGUF file says of its model, as the values of transformers' config.

Only what decides the numbers is said; where llama.cpp's code decides what a file leaves out, so is what it decides.
"""

from collections.abc import Callable
from typing import Any

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.gguf_ends import end_ids
from windlass.facts.gguf_model import GgufModel
from windlass.facts.gguf_rope import decimal, rope_parameters

_LARGEST_HEAD = 1 << 14
# Layers of the models of 27 billion, which scale queries by another number than the size of a head.
_LARGE_GEMMA = {"gemma2": 46, "gemma3": 62}
# Types whose heads share the width of the model where nothing else is said.
_HEADS_SHARE_WIDTH = ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "phi3")


def config_of(model: GgufModel) -> dict[str, Any]:
    """The config, with its `model_type`. Raises UnsupportedModel for an architecture or a shape that is not read,
    CheckpointError for values that are missing or make no sense."""
    kind = model.architecture
    if kind not in _ARCHITECTURES:
        raise UnsupportedModel(
            f"{model.path} is of the GGUF architecture {kind!r}; {', '.join(_ARCHITECTURES)} are read: choose the "
            f"model's safetensors checkpoint"
        )
    values = _common(model) | _ARCHITECTURES[kind](model)
    if (
        values["model_type"] in _HEADS_SHARE_WIDTH
        and values["head_dim"] * values["num_attention_heads"] == values["hidden_size"]
    ):
        del values["head_dim"]  # some of these configs know no such value
    return values


def _common(model: GgufModel) -> dict[str, Any]:
    heads, hidden = _each_layer(model, "attention.head_count"), _whole(model, "embedding_length")
    head_dim = _whole(model, "attention.key_length", hidden // max(1, heads))
    layers = _whole(model, "block_count")
    if not (0 < heads and 0 < head_dim <= _LARGEST_HEAD and 0 < layers <= len(model.tensors)):
        raise CheckpointError(
            f"{model.path} says it has {layers} layers and {heads} heads of {head_dim} numbers; it has "
            f"{len(model.tensors)} tensors, and a head has at most {_LARGEST_HEAD} numbers: fetch another file"
        )
    if _whole(model, "attention.value_length", head_dim) != head_dim:
        raise UnsupportedModel(f"{model.path}: keys and values of different sizes are not read; choose safetensors")
    rows = model.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in model.tensors else 0
    return {
        "hidden_size": hidden,
        "intermediate_size": _each_layer(model, "feed_forward_length", _whole(model, "expert_feed_forward_length", 0)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": _each_layer(model, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": decimal(model.number(f"{model.architecture}.attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": _whole(model, "context_length"),
        "rope_parameters": rope_parameters(model, head_dim),
        "vocab_size": rows,
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "bos_token_id": _token(model, "bos_token_id", rows),
        "eos_token_id": [token for token in end_ids(model) if token < rows] or None,
        "pad_token_id": _token(model, "padding_token_id", rows),
    }


def _llama(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    if _whole(model, "expert_count", 0):
        return _experts(model, "num_local_experts") | {"model_type": "mixtral", "sliding_window": None}
    if "blk.0.attn_q.bias" in model.tensors:
        raise UnsupportedModel(f"{model.path}: biases beside rotary order are not read; choose the safetensors model")
    window = _whole(model, "attention.sliding_window", 0)
    if window:
        return {"model_type": "mistral", "sliding_window": window}
    return {"model_type": "llama", "mlp_bias": "blk.0.ffn_down.bias" in model.tensors}


def _qwen2(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    return {"model_type": "qwen2", "use_sliding_window": False}


def _qwen3(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    return {"model_type": "qwen3", "use_sliding_window": False, "attention_bias": False}


def _qwen2moe(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    return _experts(model, "num_experts") | {
        "model_type": "qwen2_moe",
        "moe_intermediate_size": _whole(model, "expert_feed_forward_length"),
        "shared_expert_intermediate_size": _whole(model, "expert_shared_feed_forward_length"),
        "norm_topk_prob": False,
        "use_sliding_window": False,
    }


def _qwen3moe(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    return _experts(model, "num_experts") | {
        "model_type": "qwen3_moe",
        "moe_intermediate_size": _whole(model, "expert_feed_forward_length"),
        "norm_topk_prob": True,
        "use_sliding_window": False,
        "attention_bias": False,
    }


def _gemma(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    return {"model_type": "gemma"}


def _gemma2(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    return _gemma_attention(model, every=2) | {
        "model_type": "gemma2",
        "attn_logit_softcapping": decimal(model.number("gemma2.attn_logit_softcapping", 50.0)),
        "final_logit_softcapping": decimal(model.number("gemma2.final_logit_softcapping", 30.0)),
    }


def _gemma3(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    rope = rope_parameters(model, _whole(model, "attention.key_length", 256))
    if "gemma3.rope.freq_base" not in model.metadata:
        rope["rope_theta"] = 1e6
    local = decimal(model.number("gemma3.rope.freq_base_swa", 1e4))
    caps = {
        name: decimal(model.number(f"gemma3.{name}"))
        for name in ("final_logit_softcapping", "attn_logit_softcapping")
        if f"gemma3.{name}" in model.metadata
    }
    return _gemma_attention(model, every=6) | caps | {
        "model_type": "gemma3_text",
        "rope_parameters": {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }  # fmt: skip


def _phi3(model: GgufModel) -> dict[str, Any]:
    context = _whole(model, "context_length")
    return {
        "model_type": "phi3",
        "original_max_position_embeddings": _whole(model, "rope.scaling.original_context_length", context),
        "sliding_window": _whole(model, "attention.sliding_window", 0) or None,
    }


_ARCHITECTURES: dict[str, Callable[[GgufModel], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen2moe": _qwen2moe,
    "qwen3moe": _qwen3moe,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
}
"""By llama.cpp's name. "llama" is the name of Mistral and Mixtral too."""


def _gemma_attention(model: GgufModel, every: int) -> dict[str, Any]:
    """What gemma 2 and 3 share: one layer in `every` attends to everything, and queries have a scale of their own."""
    layers, heads = _whole(model, "block_count"), _each_layer(model, "attention.head_count")
    scalar = _whole(model, "attention.key_length", 256)
    if layers == _LARGE_GEMMA[model.architecture]:
        scalar = _whole(model, "embedding_length") // heads
    pattern = model.metadata.get(f"{model.architecture}.attention.sliding_window_pattern", every)
    if isinstance(pattern, int):
        slides = [bool((layer + 1) % max(1, pattern)) for layer in range(layers)]
    else:
        slides = [bool(item) for item in model.numbers(f"{model.architecture}.attention.sliding_window_pattern")]
    return {
        "query_pre_attn_scalar": scalar,
        "sliding_window": _whole(model, "attention.sliding_window", 4096 if every == 2 else 1024),
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
    }


def _experts(model: GgufModel, name: str) -> dict[str, Any]:
    return {name: _whole(model, "expert_count"), "num_experts_per_tok": _whole(model, "expert_used_count")}


def _refuse_partial_rotary(model: GgufModel) -> None:
    heads = max(1, _each_layer(model, "attention.head_count"))
    head_dim = _whole(model, "attention.key_length", _whole(model, "embedding_length") // heads)
    rotated = _whole(model, "rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise UnsupportedModel(
            f"{model.path}: only {rotated} of {head_dim} numbers of a head are turned by position, which is not read "
            f"for the architecture {model.architecture}; choose the model's safetensors checkpoint"
        )


def _whole(model: GgufModel, name: str, default: int | None = None) -> int:
    return model.whole(f"{model.architecture}.{name}", default)


def _each_layer(model: GgufModel, name: str, default: int | None = None) -> int:
    """A number that a file may give for each layer. Raises UnsupportedModel where layers differ."""
    key = f"{model.architecture}.{name}"
    if key not in model.metadata or isinstance(model.metadata[key], int):
        return model.whole(key, default)
    values = {int(value) for value in model.numbers(key)}
    if len(values) != 1:
        raise UnsupportedModel(
            f"{model.path}: {key} differs between layers ({sorted(values)}), which is not read; choose the model's "
            f"safetensors checkpoint"
        )
    return values.pop()


def _token(model: GgufModel, name: str, rows: int) -> int | None:
    key = f"tokenizer.ggml.{name}"
    token = model.whole(key) if key in model.metadata else rows
    return token if 0 <= token < rows else None
