"""The tensors of a GGUF model under the names that transformers' checkpoints have, and what was done to them undone.

llama.cpp renames tensors, puts the matrices of all experts in one, turns the rows of Llama's queries and keys into the
order in which it rotates them, and adds 1 to gemma's norms.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.gguf_model import GgufModel
from windlass.facts.gguf_types import PLAIN_TYPES, packing_of
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.tensor_fact import TensorFact

Stored = TensorFact | PackedTensor

_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_FOUR_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# What a model type has otherwise.
_OTHERWISE = {
    "gemma2": _FOUR_NORMS,
    "gemma3_text": _FOUR_NORMS,
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "mixtral": {"ffn_gate_inp": "block_sparse_moe.gate"},
}
_EXPERTS = {
    "mixtral": {
        "gate": "block_sparse_moe.experts.{}.w1",
        "up": "block_sparse_moe.experts.{}.w3",
        "down": "block_sparse_moe.experts.{}.w2",
    }
}
_USUAL_EXPERTS = {kind: f"mlp.experts.{{}}.{kind}_proj" for kind in ("gate", "up", "down")}

_IN_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")
_OF_EXPERTS = re.compile(r"ffn_(gate|up|down)_exps")
_OF_ONE_EXPERT = re.compile(r"ffn_(gate|up|down)\.(\d+)")
# Rotary frequencies, which the config says.
_ROTARY = re.compile(r"rope_(freqs|factors_long|factors_short)\.weight|blk\.\d+\.attn_rot_embd\..*")


def tensors_of(model: GgufModel, config: dict[str, Any]) -> dict[str, Stored]:
    """By name. `config` is what `config_of` gives. Raises UnsupportedModel for a tensor or a type that is not read."""
    return {
        name: _stored(fact, name, model, config)
        for key, whole in model.tensors.items()
        if not _ROTARY.fullmatch(key)
        for name, fact in _named(key, whole, model, config["model_type"])
    }


def _named(key: str, fact: TensorFact, model: GgufModel, model_type: str) -> Iterator[tuple[str, TensorFact]]:
    """transformers' name of each tensor that one of the file holds."""
    stem, _, leaf = key.rpartition(".")
    if stem in _OUTSIDE and leaf in ("weight", "bias"):
        yield f"{_OUTSIDE[stem]}.{leaf}", fact
        return
    match = _IN_LAYER.fullmatch(key)
    layer, inside, leaf = match.groups() if match else ("", "", "")
    experts = _EXPERTS.get(model_type, _USUAL_EXPERTS)
    names = _LAYER | _OTHERWISE.get(model_type, {})
    if all_of_them := _OF_EXPERTS.fullmatch(inside):
        _check_experts(key, fact, model)
        for expert in range(fact.shape[0]):
            inner = experts[all_of_them[1]].format(expert)
            yield f"model.layers.{layer}.{inner}.{leaf}", _cut(fact, expert)
    elif one := _OF_ONE_EXPERT.fullmatch(inside):
        yield f"model.layers.{layer}.{experts[one[1]].format(one[2])}.{leaf}", fact
    elif inside in names:
        yield f"model.layers.{layer}.{names[inside]}.{leaf}", fact
    else:
        raise UnsupportedModel(
            f"{model.path}: tensor {key} of the architecture {model.architecture} is not known; choose the model's "
            f"safetensors checkpoint"
        )


def _check_experts(key: str, fact: TensorFact, model: GgufModel) -> None:
    experts = model.whole(f"{model.architecture}.expert_count", 0)
    if len(fact.shape) != 3 or fact.shape[0] != experts:
        raise CheckpointError(
            f"{fact.file}: tensor {key} has the shape {list(fact.shape)}, which does not hold the matrices of "
            f"{experts} experts; fetch another file of the model"
        )


def _cut(fact: TensorFact, expert: int) -> TensorFact:
    nbytes = fact.nbytes // fact.shape[0]
    return replace(
        fact, name=f"{fact.name}#{expert}", shape=fact.shape[1:], offset=fact.offset + expert * nbytes, nbytes=nbytes
    )


def _stored(fact: TensorFact, name: str, model: GgufModel, config: dict[str, Any]) -> Stored:
    """The tensor as transformers has it."""
    if name.endswith("shared_expert_gate.weight") and len(fact.shape) == 1:
        fact = replace(fact, shape=(1, *fact.shape))
    heads, shift = 0, 0.0
    if model.architecture == "llama" and name.endswith("q_proj.weight"):
        heads = config["num_attention_heads"]
    elif model.architecture == "llama" and name.endswith("k_proj.weight"):
        heads = config["num_key_value_heads"]
    elif model.architecture.startswith("gemma") and name.endswith("norm.weight"):
        shift = -1.0
    if fact.dtype in PLAIN_TYPES and not heads and not shift:
        return replace(fact, name=name)
    row = fact.nbytes // max(1, _rows(fact.shape))
    blocks = replace(fact, dtype="U8", shape=(*fact.shape[:-1], row))
    packing = packing_of(fact.dtype, fact.file, fact.name)
    return PackedTensor(name, fact.shape, packing, (("blocks", blocks),), heads, shift)


def _rows(shape: tuple[int, ...]) -> int:
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows
