"""Tiny GGUF files written by the gguf package, each beside the checkpoint of transformers with the same numbers.

Names and keys are those of the gguf package, and what llama.cpp's conversion does to tensors is done here by its words:
rows of Llama's queries and keys in rotary order, 1 added to gemma's norms, the matrices of experts in one.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from checkpoints import random_model, save

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 160}
"""Rows of whole blocks, whatever the type."""

ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "LLAMA", {}),
    "mistral": ("mistral", "LLAMA", {}),
    "mixtral": ("mixtral", "LLAMA", {}),
    "qwen2": ("qwen2", "QWEN2", {}),
    "qwen3": ("qwen3", "QWEN3", {"head_dim": 128}),
    "qwen2_moe": ("qwen2_moe", "QWEN2MOE", {"moe_intermediate_size": 256, "shared_expert_intermediate_size": 512}),
    "qwen3_moe": ("qwen3_moe", "QWEN3MOE", {"head_dim": 128, "moe_intermediate_size": 256, "norm_topk_prob": True}),
    "gemma2": ("gemma2", "GEMMA2", {"head_dim": 128, "query_pre_attn_scalar": 128}),
    "gemma3_text": (
        "gemma3_text",
        "GEMMA3",
        {"head_dim": 128, "query_pre_attn_scalar": 128, "num_hidden_layers": 6, "vocab_size": 160},
    ),
    "phi3": ("phi3", "PHI3", {"rope_parameters": None, "original_max_position_embeddings": 256}),
}
"""transformers' name -> (its type, the gguf package's architecture, what else its config says)."""

# Where the float16 scales of a block lie; elsewhere at its beginning.
SCALES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2)}
SCALES |= {"Q6_K": (208,), "MXFP4": ()}
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def drawn_blocks(name: str, rows: int, columns: int, size: float = 1.0) -> np.ndarray:
    """Random bytes of a type, (rows, bytes of a row), whose numbers are finite and about as large as `size`."""
    kind = gguf.GGMLQuantizationType[name]
    numbers, nbytes = gguf.GGML_QUANT_SIZES[kind]
    draw = np.random.default_rng(sum(name.encode()) + rows)
    if name in PLAIN:
        values = torch.from_numpy(draw.standard_normal((rows, columns)) * size)
        return values.to(PLAIN[name]).view(torch.uint8).numpy()
    blocks = draw.integers(0, 256, (rows, columns // numbers, nbytes), dtype=np.uint8)
    places = SCALES.get(name, (0,))
    scales = draw.uniform(0.5, 1.5, (len(places), *blocks.shape[:2]))
    if name == "MXFP4":
        blocks[..., 0] = draw.integers(112, 124, blocks.shape[:2])
    for once in range(2):  # the second time as large as they are to be
        for place, scale in zip(places, scales, strict=True):
            blocks[..., place : place + 2] = scale.astype(np.float16)[..., None].view(np.uint8)
        if not once:
            scales = scales * size / gguf.quants.dequantize(blocks.reshape(rows, -1), kind).std()
    return blocks.reshape(rows, -1)


def packed(name: str, values: np.ndarray) -> np.ndarray:
    """The bytes of a matrix (N, K): its numbers quantised where the package can, else random blocks of the type."""
    if name.endswith("_K") or name.startswith("IQ4"):
        return drawn_blocks(name, *values.shape, size=0.08)
    return np.ascontiguousarray(gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])).view(np.uint8)


def gguf_beside(
    folder: Path, architecture: str, types: Sequence[str] = ("Q8_0",), one_by_one: bool = False, **changes: Any
) -> Path:
    """Writes `folder`/dense, a checkpoint of transformers, and `folder`/model.gguf with the same numbers.

    Matrices get the `types` in turn. `one_by_one` writes each expert's matrices as tensors of their own, as was done
    long ago.
    """
    model_type, _, own = ARCHITECTURES[architecture]
    model = random_model(model_type, **(WIDE | own | changes))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.normal_(0 if "gemma" in model_type else 1, 0.2)
        elif name.endswith("bias"):
            parameter.data.normal_(0, 0.2)
    save(model, folder / "dense")
    return write_gguf(folder / "dense", model.config, ARCHITECTURES[architecture][1], types, one_by_one)


def write_gguf(
    dense: Path,
    config: PreTrainedConfig,
    kind: str,
    types: Sequence[str],
    one_by_one: bool = False,
    vocabulary: Callable[[gguf.GGUFWriter], None] | None = None,
) -> Path:
    """Writes the checkpoint in `dense` as a GGUF file beside it, and the numbers that this has back to `dense`.

    `vocabulary` adds a tokenizer.
    """
    tensors = load_file(dense / "model.safetensors")
    path = dense.parent / "model.gguf"
    architecture = gguf.MODEL_ARCH[kind]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    describe(writer, config)
    if vocabulary is not None:
        vocabulary(writer)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    experts: dict[str, list[np.ndarray]] = {}
    kinds: dict[str, str] = {}
    for name in sorted(tensors, key=natural):
        values = tensors[name].float().numpy()
        stem, _, leaf = name.rpartition(".")
        number = re.search(r"\.experts\.(\d+)\.", name)
        theirs = names.get_name(re.sub(r"\.experts\.\d+\.", ".experts.", stem))
        assert theirs is not None, name
        plain = values.ndim == 1 or "gate_inp" in theirs
        chosen = kinds.setdefault(theirs, "F32" if plain else fitting(types[len(kinds) % len(types)], values.shape))
        stored = as_stored(values, theirs, kind, config)
        data = packed(chosen, stored)
        numbers = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[chosen]).reshape(stored.shape)
        tensors[name] = torch.from_numpy(as_stored(numbers.copy(), theirs, kind, config, back=True).copy())
        if number and one_by_one:
            theirs = f"{theirs.removesuffix('_exps')}.{number[1]}"
        elif number:
            experts.setdefault(f"{theirs}.{leaf}", []).append(data)
            continue
        add(writer, f"{theirs}.{leaf}", data, chosen, stored.shape)
    for name, matrices in experts.items():
        add(writer, name, np.stack(matrices), kinds[name.removesuffix(".weight")])
    finish(writer)
    save_file(tensors, dense / "model.safetensors", metadata={"format": "pt"})
    return path


def fitting(name: str, shape: tuple[int, ...]) -> str:
    """The type, or F16 for rows that are no whole number of its blocks, as llama.cpp chooses."""
    numbers, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    return "F16" if shape[-1] % numbers else name


def as_stored(values: np.ndarray, name: str, kind: str, config: PreTrainedConfig, back: bool = False) -> np.ndarray:
    """A tensor as llama.cpp's conversion leaves it; `back` undoes that."""
    if kind == "LLAMA" and name.endswith(("attn_q", "attn_k")):
        heads = config.num_attention_heads if name.endswith("q") else config.num_key_value_heads
        halves = (heads, -1, 2) if back else (heads, 2, values.shape[0] // heads // 2)
        return values.reshape(*halves, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if kind.startswith("GEMMA") and name.endswith("norm"):
        return values - 1 if back else values + 1
    return values


def describe(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    """The metadata that llama.cpp's conversion writes of a config."""
    heads, rope = config.num_attention_heads, rope_of(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(rotated)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    values = config.to_dict()
    if values.get("sliding_window") and values.get("use_sliding_window") is not False:
        writer.add_sliding_window(config.sliding_window)
    if experts := values.get("num_local_experts") or values.get("num_experts"):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if values.get("moe_intermediate_size"):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if values.get("shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if values.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if values.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    scale(writer, rope, rotated, config)


def scale(writer: gguf.GGUFWriter, rope: dict[str, Any], rotated: int, config: PreTrainedConfig) -> None:
    """What is said of stretched positions."""
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "longrope":
        for name in ("long", "short"):
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(rope[f"{name}_factor"], dtype=np.float32))
    if kind == "llama3":
        add(writer, "rope_freqs.weight", llama3_divisors(config, rotated).view(np.uint8), "F32", (rotated // 2,))


def llama3_divisors(config: PreTrainedConfig, rotated: int) -> np.ndarray:
    """By what llama.cpp divides each frequency: what the frequencies of transformers come to."""
    plain = 1.0 / rope_of(config)["rope_theta"] ** (torch.arange(0, rotated, 2).float() / rotated)
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return (plain / stretched).numpy().astype(np.float32)


def rope_of(config: PreTrainedConfig) -> dict[str, Any]:
    rope = config.to_dict()["rope_parameters"]
    return rope.get("full_attention", rope)


def add(writer: gguf.GGUFWriter, name: str, data: np.ndarray, kind: str, shape: tuple[int, ...] | None = None) -> None:
    """Adds a tensor by its bytes."""
    if kind == "F32":
        writer.add_tensor(name, data.view(np.float32).reshape(shape) if shape else data.view(np.float32))
    elif kind == "F16":
        writer.add_tensor(name, data.view(np.float16).reshape(shape) if shape else data.view(np.float16))
    else:
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]


def the_same_model(dense: Path) -> PreTrainedModel:
    """transformers' own model of the numbers in a GGUF file, in float32."""
    return AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32, attn_implementation="eager").eval()
