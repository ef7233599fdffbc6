"""Tries every decoder-only model type of the installed transformers, with the settings that real checkpoints have.

Prints one line a type; with --write all of them go to docs/architectures.md. Verdicts are kept in the cache folder
($WINDLASS_CACHE), so a survey goes on where it was: empty it after a change of the bridge.

Run: PYTHONPATH=src python dev/survey_model_types.py [--write] [TYPE ...]
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers import logging as transformers_logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from windlass.engine.verdicts import verdict_of
from windlass.errors import UnsupportedModel
from windlass.model.shrink import FAILURES
from windlass.model.text_config import text_config_of

TABLE = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768}
DEEPSEEK_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40, "beta_fast": 32, "beta_slow": 1,
                 "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + 0.02 * i for i in range(48)],
        "long_factor": [1.0 + 1.3 * i for i in range(48)]}  # fmt: skip
# Settings that real checkpoints have and defaults do not: name -> (model type, what differs from the default).
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "llama+llama3": ("llama", {"num_key_value_heads": 8, "rope_parameters": LLAMA3, "max_position_embeddings": 131072}),
    "llama+linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "llama+dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    "qwen2+yarn+window": ("qwen2", {"rope_parameters": YARN, "max_position_embeddings": 131072,
                                    "use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 20}),
    "phi3+longrope": ("phi3", {"rope_parameters": LONG, "max_position_embeddings": 131072, "pad_token_id": 0,
                               "original_max_position_embeddings": 4096}),
    "deepseek_v3+yarn": ("deepseek_v3", {"rope_parameters": DEEPSEEK_YARN, "max_position_embeddings": 163840}),
    "deepseek_v2": ("deepseek_v2", {"num_experts_per_tok": 6, "topk_method": "group_limited_greedy", "n_group": 8,
                                    "topk_group": 3, "n_routed_experts": 64, "first_k_dense_replace": 1}),
    "deepseek_v2_lite": ("deepseek_v2", {"num_experts_per_tok": 6, "q_lora_rank": None, "n_routed_experts": 64,
                                         "first_k_dense_replace": 1}),
    "mistral+window": ("mistral", {"sliding_window": 4096}),
    "qwen3_moe+step": ("qwen3_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [0]}),
    "qwen3_moe+128": ("qwen3_moe", {"num_experts": 128, "num_experts_per_tok": 8, "head_dim": 128}),
    "dots1": ("dots1", {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2, "n_group": 1,
                        "topk_group": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5}),
    "dbrx": ("dbrx", {"attn_config": {"kv_n_heads": 8, "rope_theta": 5e5, "clip_qkv": 8},
                      "ffn_config": {"moe_num_experts": 16, "moe_top_k": 4, "ffn_hidden_size": 10752}}),
    "bamba": ("bamba", {"attn_layer_indices": [9, 18, 27]}),
    "granitemoehybrid": ("granitemoehybrid", {"layer_types": ["mamba"] * 5 + ["attention"] + ["mamba"] * 26}),
    "cohere_compass_text": ("cohere_compass_text", {"rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
    "kimi_k2": ("deepseek_v3", {"n_routed_experts": 384, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
                                "num_attention_heads": 64, "num_key_value_heads": 64,
                                "rope_parameters": DEEPSEEK_YARN}),
    "mixtral+window": ("mixtral", {"sliding_window": 4096}),
    "phimoe+longrope": ("phimoe", {"rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_mscale": 1.1, "long_mscale": 1.2, "short_factor": [1.0] * 64,
        "long_factor": [2.0 + i for i in range(64)], "original_max_position_embeddings": 4096}}),
    "gemma3+linear": ("gemma3_text", {"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
    "llama4+dense": ("llama4_text", {"interleave_moe_layer_step": 2, "num_local_experts": 128,
                                     "rope_parameters": LLAMA3}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
                                              "head_dim": 128}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
                                          "head_dim": 128, "num_experts": 16, "moe_topk": [2] * 32}),
    "ministral": ("ministral", {"head_dim": 128, "layer_types": ["sliding_attention", "full_attention"] * 16,
                                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "nemotron": ("nemotron", {"head_dim": 128, "num_key_value_heads": 8}),
    "lfm2_moe": ("lfm2_moe", {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8}),
    "falcon+alibi": ("falcon", {"alibi": True}),
    "falcon+new": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 8, "num_attention_heads": 64,
                              "hidden_size": 4096}),
    "gpt_bigcode+mha": ("gpt_bigcode", {"multi_query": False}),
    "granite+multipliers": ("granite", {"embedding_multiplier": 12.0, "residual_multiplier": 0.22,
                                        "attention_multiplier": 0.0078125, "logits_scaling": 16.0,
                                        "num_key_value_heads": 8}),
    "phi4_multimodal+longrope": ("phi4_multimodal", {
        "rope_parameters": LONG, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096}),
    "lfm2+conv": ("lfm2", {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8}),
    "gemma3n+shared": ("gemma3n_text", {"num_kv_shared_layers": 15}),
    "gemma4+shared": ("gemma4_text", {"num_kv_shared_layers": 18}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What a trial of one type, or of one variant of it, came to."""

    name: str
    outcome: str
    reason: str


def prepared(name: str) -> PreTrainedConfig:
    """The text part of the default config of a type, or of a variant."""
    model_type, changes = VARIANTS.get(name, (name, {}))
    return text_config_of(CONFIG_MAPPING[model_type](**changes))


def survey(name: str) -> Finding:
    """One trial, or what keeps it from being made."""
    try:
        config = prepared(name)
    except UnsupportedModel as error:
        return Finding(name, "no decoder", str(error))
    except FAILURES as error:  # a default config that its own class refuses
        return Finding(name, "no config", f"{type(error).__name__}: {' '.join(str(error).split())}")
    verdict = verdict_of(config)
    return Finding(name, verdict.outcome, " ".join(verdict.reason.split()))


def page(findings: Sequence[Finding]) -> str:
    """docs/architectures.md."""
    proven = [f for f in findings if f.outcome == "proven"]
    differs = [f for f in findings if f.outcome in ("differs", "cannot shrink")]
    others = [f for f in findings if f.outcome in ("no decoder", "no config")]
    return "\n".join([
        "# Architectures",
        "",
        f"Made with transformers {transformers.__version__} by `python dev/survey_model_types.py --write`.",
        "",
        "Every model type with a causal language model is tried: a tiny random twin of its config runs here and in",
        "transformers alone, packed, in pieces and decoding, and log probabilities are compared (at most 1e-3 apart).",
        "A name with `+` is a type with settings that real checkpoints have and its default lacks (`VARIANTS` in",
        "the script). A checkpoint is judged by its own config when it is opened, whatever stands here.",
        "",
        f"## Proven ({len(proven)})",
        "",
        "| type | largest difference of a log probability |",
        "| --- | --- |",
        *(f"| {f.name} | {f.reason.rpartition(' ')[2]} |" for f in proven),
        "",
        f"## Refused by name, before a weight is read ({len(differs)})",
        "",
        "| type | why |",
        "| --- | --- |",
        *(f"| {f.name} | {f.reason.replace('|', '/')} |" for f in differs),
        "",
        f"## Not tried ({len(others)})",
        "",
        "Encoders, encoder-decoders, and types without a causal language model of text or a usable default config:",
        ", ".join(f.name for f in others) + ".",
        "",
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="model types or variants; all when none is given")
    parser.add_argument("--write", action="store_true", help="write docs/architectures.md")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(1)
    findings = []
    for name in given.types or dict.fromkeys([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS]):
        start = time.perf_counter()
        findings.append(survey(name))
        found = findings[-1]
        print(f"{name:28s} {found.outcome:14s} {time.perf_counter() - start:5.1f} s  {found.reason}", flush=True)
    if given.write:
        TABLE.write_text(page(sorted(findings, key=lambda f: f.name)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
