"""What a GGUF file says of its model, as the values of transformers' config.

Only what decides the numbers is said; what an architecture adds is in gguf_architectures.py.
"""

from typing import Any

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.gguf_architectures import ARCHITECTURES, each_layer, own_whole
from windlass.facts.gguf_ends import end_ids
from windlass.facts.gguf_model import GgufModel
from windlass.facts.gguf_rope import decimal, rope_parameters

_LARGEST_HEAD = 1 << 14
# Types whose heads share the width of the model where nothing else is said.
_HEADS_SHARE_WIDTH = ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "phi3")


def config_of(model: GgufModel) -> dict[str, Any]:
    """The config, with its `model_type`. Raises UnsupportedModel for an architecture or a shape that is not read,
    CheckpointError for values that are missing or make no sense."""
    kind = model.architecture
    if kind not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{model.path} is of the GGUF architecture {kind!r}; {', '.join(ARCHITECTURES)} are read: choose the "
            f"model's safetensors checkpoint"
        )
    values = _common(model) | ARCHITECTURES[kind](model)
    if (
        values["model_type"] in _HEADS_SHARE_WIDTH
        and values["head_dim"] * values["num_attention_heads"] == values["hidden_size"]
    ):
        del values["head_dim"]  # some of these configs know no such value
    return values


def _common(model: GgufModel) -> dict[str, Any]:
    heads, hidden = each_layer(model, "attention.head_count"), own_whole(model, "embedding_length")
    head_dim = own_whole(model, "attention.key_length", hidden // max(1, heads))
    layers = own_whole(model, "block_count")
    if not (0 < heads and 0 < head_dim <= _LARGEST_HEAD and 0 < layers <= len(model.tensors)):
        raise CheckpointError(
            f"{model.path} says it has {layers} layers and {heads} heads of {head_dim} numbers; it has "
            f"{len(model.tensors)} tensors, and a head has at most {_LARGEST_HEAD} numbers: fetch another file"
        )
    if "token_embd.weight" not in model.tensors:
        raise CheckpointError(f"{model.path} has no tensor token_embd.weight; give the file of a language model")
    if own_whole(model, "attention.value_length", head_dim) != head_dim:
        raise UnsupportedModel(f"{model.path}: keys and values of different sizes are not read; choose safetensors")
    rows = model.tensors["token_embd.weight"].shape[0]
    return {
        "hidden_size": hidden,
        "intermediate_size": each_layer(
            model, "feed_forward_length", own_whole(model, "expert_feed_forward_length", 0)
        ),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": each_layer(model, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": decimal(model.positive(f"{model.architecture}.attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": own_whole(model, "context_length"),
        "rope_parameters": rope_parameters(model, head_dim),
        "vocab_size": rows,
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "bos_token_id": _token(model, "bos_token_id", rows),
        "eos_token_id": [token for token in end_ids(model) if token < rows] or None,
        "pad_token_id": _token(model, "padding_token_id", rows),
    }


def _token(model: GgufModel, name: str, rows: int) -> int | None:
    key = f"tokenizer.ggml.{name}"
    token = model.whole(key) if key in model.metadata else rows
    return token if 0 <= token < rows else None
