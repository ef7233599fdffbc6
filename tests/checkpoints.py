"""Tiny random checkpoints of many architectures, written by transformers, and its greedy answers to compare with."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, LlamaConfig, PreTrainedModel

from windlass.jobs.demo_checkpoint import write_checkpoint
from windlass.model.shrink import shrink
from windlass.model.text_config import text_config_of

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
GROUPED = BASE | {"num_key_value_heads": 2}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0, 1.5] * 4,
    "original_max_position_embeddings": 16,
}
# The last two of five layers share the keys and values of the last full and the last sliding layer before them.
SHARING = GROUPED | {
    "num_hidden_layers": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "num_kv_shared_layers": 2,
    "head_dim": 16,
    "sliding_window": 8,
    "vocab_size_per_layer_input": 128,
    "hidden_size_per_layer_input": 16,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "opt": {key: value for key, value in BASE.items() if key != "intermediate_size"}
    | {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 8},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 16},
    "gemma2": GROUPED | {"head_dim": 16, "sliding_window": 8},
    "gemma3_text": GROUPED | {"head_dim": 16, "sliding_window": 8},
    "gemma3n_text": SHARING | {"laurel_rank": 8, "activation_sparsity_pattern": [0.9, 0.9, 0.0, 0.0, 0.0]},
    "gemma4_text": SHARING | {"use_double_wide_mlp": True},
    "phi3": GROUPED | {"original_max_position_embeddings": 16, "rope_parameters": LONGROPE},
    "gpt_neox": BASE,
    "mixtral": GROUPED | {"num_local_experts": 4},
    "qwen3_moe": GROUPED
    | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "deepseek_v3": BASE
    | {"num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    | {"n_group": 2, "topk_group": 1, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8}
    | {"qk_nope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1},
    "gpt_oss": GROUPED
    | {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
}  # fmt: skip

# Checkpoints that nest a text model beside a vision tower.
COMPOSITES = ("gemma3", "mistral3", "llama4", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
VISION = {"hidden_size": 64, "out_hidden_size": 64, "depth": 1, "num_hidden_layers": 1, "num_heads": 2,
          "num_attention_heads": 2, "head_dim": 32, "intermediate_size": 32, "embed_dim": 64}  # fmt: skip


def composite_model(model_type: str) -> PreTrainedModel:
    """A tiny float32 model of text and images, random throughout; its text part is the shrunken default one."""
    full = AutoConfig.for_model(model_type)
    text = shrink(text_config_of(full)).to_dict()
    text = {key: value for key, value in text.items() if key not in ("model_type", "norm_topk_prob")}
    if model_type.startswith("qwen"):
        text["rope_parameters"] = text["rope_parameters"] | {"mrope_section": [4, 2, 2]}
    vision = VISION | {key: [0] for key in ("deepstack_visual_indexes", "fullatt_block_indexes")}
    config = AutoConfig.for_model(
        model_type, text_config=full.text_config.to_dict() | text, vision_config=full.vision_config.to_dict() | vision
    )
    torch.manual_seed(0)
    composite = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    for parameter in composite.parameters():
        parameter.data.normal_(0, 0.1)
    composite.generation_config.eos_token_id = None
    return composite


def random_model(architecture: str, **changes: Any) -> PreTrainedModel:
    """A tiny float32 model whose weights are large enough that every layer changes the answer."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **(ARCHITECTURES.get(architecture, GROUPED) | changes))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.08)
    model.generation_config.eos_token_id = None
    return model


def random_prompts(*lengths: int, most: int = 128) -> list[list[int]]:
    """Token ids inside the tiny vocabulary, below `most`: the special tokens of images lie above 96."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, most, (length,), generator=generator).tolist() for length in lengths]


def greedy_answers(
    model: PreTrainedModel, prompts: list[list[int]], tokens: int, use_cache: bool = True
) -> list[list[int]]:
    """transformers' own greedy continuation of each prompt alone."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0,
            use_cache=use_cache,
        )  # fmt: skip
        answers.append(out[0, len(prompt) :].tolist())
    return answers


def save(model: PreTrainedModel, folder: Path, shard: str = "5GB") -> Path:
    """Writes a checkpoint as transformers does, in shards of at most `shard`."""
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def byte_llama(folder: Path, max_position_embeddings: int = 128) -> str:
    """Writes a Llama of 64 dimensions whose tokens are bytes to `folder`, and gives its name for a command line."""
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"], hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=259, max_position_embeddings=max_position_embeddings,
        bos_token_id=1, eos_token_id=2, initializer_range=0.1, dtype="float32",
    )  # fmt: skip
    write_checkpoint(folder, config)
    return str(folder)
