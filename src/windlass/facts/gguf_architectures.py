"""What each architecture of GGUF files adds to a config, by llama.cpp's names: "llama" means Mistral and Mixtral too.

Where a file leaves something out, it is as llama.cpp's code has it.
"""

from collections.abc import Callable
from typing import Any

from windlass.errors import UnsupportedModel
from windlass.facts.gguf_model import GgufModel
from windlass.facts.gguf_rope import decimal, rope_parameters

# Layers of the models of 27 billion, which scale queries by another number than the size of a head.
_LARGE_GEMMA = {"gemma2": 46, "gemma3": 62}


def own_whole(model: GgufModel, name: str, default: int | None = None) -> int:
    """A whole number under the architecture's own name. Raises CheckpointError."""
    return model.whole(f"{model.architecture}.{name}", default)


def each_layer(model: GgufModel, name: str, default: int | None = None) -> int:
    """A number that a file may give for each layer. Raises UnsupportedModel where layers differ."""
    key = f"{model.architecture}.{name}"
    if key not in model.metadata or isinstance(model.metadata[key], int):
        return model.whole(key, default)
    values = set(model.wholes(key))
    if len(values) != 1:
        raise UnsupportedModel(
            f"{model.path}: {key} differs between layers ({sorted(values)}), which is not read; choose the model's "
            f"safetensors checkpoint"
        )
    return values.pop()


def _llama(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    if own_whole(model, "expert_count", 0):
        return _experts(model, "num_local_experts") | {"model_type": "mixtral", "sliding_window": None}
    if "blk.0.attn_q.bias" in model.tensors:
        raise UnsupportedModel(f"{model.path}: biases beside rotary order are not read; choose the safetensors model")
    window = own_whole(model, "attention.sliding_window", 0)
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
        "moe_intermediate_size": own_whole(model, "expert_feed_forward_length"),
        "shared_expert_intermediate_size": own_whole(model, "expert_shared_feed_forward_length"),
        "norm_topk_prob": False,
        "use_sliding_window": False,
    }


def _qwen3moe(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    return _experts(model, "num_experts") | {
        "model_type": "qwen3_moe",
        "moe_intermediate_size": own_whole(model, "expert_feed_forward_length"),
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
        "attn_logit_softcapping": decimal(model.positive("gemma2.attn_logit_softcapping", 50.0)),
        "final_logit_softcapping": decimal(model.positive("gemma2.final_logit_softcapping", 30.0)),
    }


def _gemma3(model: GgufModel) -> dict[str, Any]:
    _refuse_partial_rotary(model)
    rope = rope_parameters(model, own_whole(model, "attention.key_length", 256))
    if "gemma3.rope.freq_base" not in model.metadata:
        rope["rope_theta"] = 1e6
    local = decimal(model.positive("gemma3.rope.freq_base_swa", 1e4))
    caps = {
        name: decimal(model.positive(f"gemma3.{name}"))
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
    context = own_whole(model, "context_length")
    return {
        "model_type": "phi3",
        "original_max_position_embeddings": own_whole(model, "rope.scaling.original_context_length", context),
        "sliding_window": own_whole(model, "attention.sliding_window", 0) or None,
    }


ARCHITECTURES: dict[str, Callable[[GgufModel], dict[str, Any]]] = {
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
"""By name."""


def _gemma_attention(model: GgufModel, every: int) -> dict[str, Any]:
    """What gemma 2 and 3 share: one layer in `every` attends to everything, and queries have a scale of their own."""
    layers, heads = own_whole(model, "block_count"), each_layer(model, "attention.head_count")
    scalar = own_whole(model, "attention.key_length", 256)
    if layers == _LARGE_GEMMA[model.architecture]:
        scalar = own_whole(model, "embedding_length") // heads
    pattern = model.metadata.get(f"{model.architecture}.attention.sliding_window_pattern", every)
    if isinstance(pattern, int):
        slides = [bool((layer + 1) % max(1, pattern)) for layer in range(layers)]
    else:
        slides = [bool(item) for item in model.numbers(f"{model.architecture}.attention.sliding_window_pattern")]
    return {
        "query_pre_attn_scalar": scalar,
        "sliding_window": own_whole(model, "attention.sliding_window", 4096 if every == 2 else 1024),
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
    }


def _experts(model: GgufModel, name: str) -> dict[str, Any]:
    return {name: own_whole(model, "expert_count"), "num_experts_per_tok": own_whole(model, "expert_used_count")}


def _refuse_partial_rotary(model: GgufModel) -> None:
    heads = max(1, each_layer(model, "attention.head_count"))
    head_dim = own_whole(model, "attention.key_length", own_whole(model, "embedding_length") // heads)
    rotated = own_whole(model, "rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise UnsupportedModel(
            f"{model.path}: only {rotated} of {head_dim} numbers of a head are turned by position, which is not read "
            f"for the architecture {model.architecture}; choose the model's safetensors checkpoint"
        )
