"""The arithmetic of a model by its facts, against what torch counts in transformers' own forward."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from checkpoints import ARCHITECTURES, random_model, save
from windlass.engine.opened_model import open_model, read_files
from windlass.facts.model_facts import ModelFacts
from windlass.planner.work import (
    active_parameters,
    cache_bytes,
    head_flops,
    layer_flops,
    matrix_flops,
    pair_flops,
    rebuild_flops,
    token_flops,
    total_parameters,
)

FAMILIES = [name for name in ARCHITECTURES if name not in ("gemma3n_text", "gemma4_text")]
TOKENS = 24


def facts_of(model: PreTrainedModel, folder: Path) -> ModelFacts:
    return open_model(read_files(save(model, folder)), "tiny", "auto", None).facts


def counted(model: PreTrainedModel, **arguments: int) -> int:
    """Operations of a forward over TOKENS tokens, those that make rotary tables aside."""
    model.set_experts_implementation("eager")
    with FlopCounterMode(display=False, depth=None) as counter, torch.inference_mode():
        model(torch.zeros(1, TOKENS, dtype=torch.int64), use_cache=False, **arguments)
    counts = counter.get_flop_counts()
    rotary = sum(sum(ops.values()) for name, ops in counts.items() if name.endswith("rotary_emb"))
    return sum(counts["Global"].values()) - rotary


@pytest.mark.parametrize("architecture", FAMILIES)
def test_flops_are_those_that_torch_counts(architecture: str, tmp_path: Path) -> None:
    """Attention over a full square, as the eager model computes it, masks and windows included."""
    model = random_model(architecture)
    facts = facts_of(model, tmp_path)
    assert counted(model) == TOKENS * token_flops(facts) + TOKENS**2 * pair_flops(facts)
    assert counted(model) - counted(model, logits_to_keep=1) == (TOKENS - 1) * head_flops(facts)


def test_the_parts_are_the_whole(tmp_path: Path) -> None:
    facts = facts_of(random_model("deepseek_v3"), tmp_path)
    layers = sum(layer_flops(facts, layer) for layer in range(facts.num_layers))
    assert layers + head_flops(facts) == token_flops(facts) > 0
    assert token_flops(facts, logits=False) == layers
    assert all(matrix_flops(group) == 0 for group in facts.groups if group.kind in ("embedding", "outer"))


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mixtral", "gpt_oss"])
def test_parameters_at_work(architecture: str, tmp_path: Path) -> None:
    """All of them, less the experts that a token is not sent to."""
    model = random_model(architecture)
    facts, total = facts_of(model, tmp_path), sum(parameter.numel() for parameter in model.parameters())
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name)
    assert total_parameters(facts) == total
    assert active_parameters(facts) == total - experts + experts * facts.experts_per_token // 4


def test_compressed_keys_cost_their_rebuilding(tmp_path: Path) -> None:
    """The module's own: one token through its up-projection."""
    model = random_model("deepseek_v3")
    facts = facts_of(model, tmp_path / "deepseek")
    attention = model.model.layers[0].self_attn
    with FlopCounterMode(display=False) as counter:
        attention.expand_kv(torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 1, 8))
    assert rebuild_flops(facts) == facts.num_layers * counter.get_total_flops() > 0
    assert rebuild_flops(facts_of(random_model("llama"), tmp_path / "llama")) == 0


def test_a_window_bounds_what_is_attended_to_and_kept(tmp_path: Path) -> None:
    facts = facts_of(random_model("gemma2"), tmp_path)
    windows = [shape.window for _, shape in facts.attention_shapes]
    assert sorted(windows, key=str) == [8, 8, None]
    one = facts.attention_shapes[0][1].flops_per_pair
    assert pair_flops(facts, 100) == one * (8 + 8 + 100) and pair_flops(facts, 5) == one * 15
    assert cache_bytes(facts, 100) * 3 == facts.cache_bytes_per_token * (8 + 8 + 100)
