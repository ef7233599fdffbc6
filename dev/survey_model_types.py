"""Tries every decoder-only model type of the installed transformers: can its config be shrunk and its twin run?

Prints one line a type, then the counts. Run: python dev/survey_model_types.py [TYPE ...]
"""

import argparse
import collections
import sys
import time
import warnings

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers import logging as transformers_logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from windlass.errors import UnsupportedModel
from windlass.model.shrink import FAILURES, CannotShrink, shrink
from windlass.model.text_config import text_config_of
from windlass.model.trial_lengths import thresholds, trial_lengths
from windlass.model.twin import Reference, make_twin, reference_logits, trial_prompts

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
    "gemma3n+shared": ("gemma3n_text", {"num_kv_shared_layers": 15}),
    "gemma4+shared": ("gemma4_text", {"num_kv_shared_layers": 18}),
}  # fmt: skip


def prepared(name: str) -> PreTrainedConfig:
    model_type, changes = VARIANTS.get(name, (name, {}))
    return text_config_of(CONFIG_MAPPING[model_type](**changes))


def told_apart(model: PreTrainedModel, references: tuple[Reference, ...]) -> str:
    """How far the logits spread, how far decoding is from a whole forward, and how many tokens differ."""
    spread = min(reference.prompt_logits.std().item() for reference in references)
    longest = references[-1]
    with torch.no_grad():
        ids = torch.tensor([longest.prompt + longest.tokens])
        whole = model(ids, use_cache=False).logits[0, len(longest.prompt) - 1 : -1]
    drift = (whole - longest.step_logits).abs().max().item()
    distinct = len({token for reference in references for token in reference.tokens})
    return f"spread {spread:.2f}  decode/whole {drift:.0e}  distinct tokens {distinct}"


def survey(name: str) -> tuple[str, str]:
    try:
        config = shrink(prepared(name))
    except UnsupportedModel as error:
        return "refused", str(error)
    except CannotShrink as error:
        return "cannot shrink", str(error)
    model = make_twin(config)
    references = reference_logits(model, trial_prompts(trial_lengths(config)))
    layers = config.to_dict().get("num_hidden_layers", "?")
    note = f"layers {layers}  thresholds {thresholds(config)}  lengths {trial_lengths(config)}  "
    return "ok", note + told_apart(model, references)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="model types or variants; all when none is given")
    names = parser.parse_args().types or [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS]
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    counts: collections.Counter[str] = collections.Counter()
    for name in dict.fromkeys(names):
        start = time.perf_counter()
        try:
            verdict, note = survey(name)
        except FAILURES as error:  # a survey goes on: the failure is its finding
            verdict, note = "failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        counts[verdict] += 1
        print(f"{name:28s} {verdict:14s} {time.perf_counter() - start:5.1f} s  {note}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
