"""Tiny random checkpoints of many architectures, written by transformers, and its greedy answers to compare with."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

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
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "opt": {key: value for key, value in BASE.items() if key != "intermediate_size"}
    | {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 8},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 16},
    "gemma2": GROUPED | {"head_dim": 16, "sliding_window": 8},
    "gemma3_text": GROUPED | {"head_dim": 16, "sliding_window": 8},
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


def random_model(architecture: str, **changes: Any) -> PreTrainedModel:
    """A tiny float32 model whose weights are large enough that every layer changes the answer."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **(ARCHITECTURES[architecture] | changes))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.08)
    model.generation_config.eos_token_id = None
    return model


def random_prompts(*lengths: int) -> list[list[int]]:
    """Token ids inside the tiny vocabulary."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 128, (length,), generator=generator).tolist() for length in lengths]


def greedy_answers(model: PreTrainedModel, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """transformers' own greedy continuation of each prompt alone."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0
        )
        answers.append(out[0, len(prompt) :].tolist())
    return answers


def save(model: PreTrainedModel, folder: Path, shard: str = "5GB") -> Path:
    """Writes a checkpoint as transformers does, in shards of at most `shard`."""
    model.save_pretrained(folder, max_shard_size=shard)
    return folder
