"""Makes the verdicts that ship with the package: one trial of each common model type with this transformers.

Run: PYTHONPATH=src python dev/make_verdicts.py     (writes src/windlass/engine/verdicts.json; a test holds it to this)
"""

import json
from dataclasses import asdict

import torch
from transformers import AutoConfig

from windlass.engine.verdicts import SHIPPED, fingerprint_of, try_now
from windlass.facts.verdict import Verdict
from windlass.model.shrink import shrink

COMMON = (
    "llama", "opt", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt_neox", "gpt2", "mixtral",
    "qwen3_moe", "deepseek_v3", "gpt_oss", "phi", "granite", "olmo2", "starcoder2", "stablelm", "cohere2", "smollm3",
    "gemma", "gemma3n_text", "gemma4_text", "llama4_text", "glm4", "glm4_moe", "olmo", "olmo3", "seed_oss", "ernie4_5",
    "exaone4", "qwen2_moe", "phimoe", "cohere",
)  # fmt: skip


def verdict_now(model_type: str) -> Verdict:
    """A trial of the type's default config."""
    twin = shrink(AutoConfig.for_model(model_type))
    return try_now(twin, fingerprint_of(twin))


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads cost more than they give at these sizes
    made = [asdict(verdict_now(model_type)) for model_type in COMMON]
    SHIPPED.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    for verdict in made:
        print(f"{verdict['model_type']:12s} {verdict['outcome']:14s} {verdict['reason']}")
