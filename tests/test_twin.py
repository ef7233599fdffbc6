"""A twin is the same kind of model made tiny, and its reference is transformers' own answer for each sequence alone."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)

from checkpoints import COMPOSITES, composite_model
from windlass.errors import UnsupportedModel
from windlass.model.shrink import MOST_PARAMETERS, CannotShrink, shrink
from windlass.model.text_config import TEXT_NAMES, text_config_of
from windlass.model.trial_lengths import DECODE_STEPS, rotary_thresholds, thresholds, trial_lengths
from windlass.model.twin import make_twin, reference_logits, trial_prompts

LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0 + 0.02 * i for i in range(48)],
            "long_factor": [1.0 + 1.3 * i for i in range(48)]}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096}  # fmt: skip
FULL_SIZE = {
    "opt": AutoConfig.for_model("opt"),
    "gpt_neox": AutoConfig.for_model("gpt_neox"),
    "llama, llama3 rope": AutoConfig.for_model(
        "llama", num_key_value_heads=8, rope_parameters=LLAMA3, max_position_embeddings=131072
    ),
    "llama, dynamic rope": AutoConfig.for_model(
        "llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
    "mistral, window": AutoConfig.for_model("mistral", sliding_window=4096),
    "qwen2, window": AutoConfig.for_model("qwen2", use_sliding_window=True, sliding_window=4096, max_window_layers=20),
    "phi3, longrope": AutoConfig.for_model(
        "phi3", rope_parameters=LONGROPE, max_position_embeddings=131072, original_max_position_embeddings=4096
    ),
    "gemma3_text": AutoConfig.for_model("gemma3_text"),
    "gemma3n_text": AutoConfig.for_model("gemma3n_text"),
    "mixtral": AutoConfig.for_model("mixtral"),
    "qwen3_moe": AutoConfig.for_model("qwen3_moe", num_experts=128, num_experts_per_tok=8, mlp_only_layers=[0]),
    "deepseek_v3, yarn": AutoConfig.for_model("deepseek_v3", rope_parameters=YARN, max_position_embeddings=163840),
    "gpt_oss": AutoConfig.for_model("gpt_oss"),
    "llama4_text": AutoConfig.for_model("llama4_text"),
}
WITH_THRESHOLDS = [name for name, config in FULL_SIZE.items() if thresholds(shrink(config))]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they give at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=FULL_SIZE, scope="module")
def full(request: pytest.FixtureRequest) -> PreTrainedConfig:
    return FULL_SIZE[request.param]


def kinds_of_layers(config: PreTrainedConfig) -> set[str]:
    return set(config.to_dict().get("layer_types") or [])


def test_a_twin_has_the_type_the_kinds_of_layers_and_the_rotary_setting_of_the_full_model(
    full: PreTrainedConfig,
) -> None:
    twin = shrink(full)
    assert twin.model_type == full.model_type
    assert kinds_of_layers(twin) == kinds_of_layers(full)
    assert twin.tie_word_embeddings == full.tie_word_embeddings
    rope, full_rope = (config.to_dict().get("rope_parameters") or {} for config in (twin, full))
    assert rope.keys() == full_rope.keys()
    assert rope.get("rope_type") == full_rope.get("rope_type")


def test_a_twin_is_tiny_in_memory(full: PreTrainedConfig) -> None:
    assert sum(parameter.numel() for parameter in make_twin(shrink(full)).parameters()) <= MOST_PARAMETERS


def test_shrinking_a_twin_again_changes_nothing(full: PreTrainedConfig) -> None:
    once = shrink(full)
    assert shrink(once).to_dict() == once.to_dict()


def test_shrinking_leaves_the_full_config_as_it_was(full: PreTrainedConfig) -> None:
    before = copy.deepcopy(full.to_dict())
    shrink(full)
    assert full.to_dict() == before


@pytest.mark.parametrize("name", WITH_THRESHOLDS)
def test_trial_lengths_lie_on_both_sides_of_every_threshold(name: str) -> None:
    twin = shrink(FULL_SIZE[name])
    for limit in thresholds(twin):
        assert any(length + DECODE_STEPS < limit for length in trial_lengths(twin))
        assert any(length < limit <= length + DECODE_STEPS for length in trial_lengths(twin))
        assert any(length > limit for length in trial_lengths(twin))


def test_every_kind_of_threshold_comes_down_to_a_few_dozen_tokens() -> None:
    found = {name: thresholds(shrink(FULL_SIZE[name])) for name in WITH_THRESHOLDS}
    assert {"mistral, window", "phi3, longrope", "llama, dynamic rope", "gpt_oss", "llama4_text"} <= found.keys()
    assert all(limit <= 40 for limits in found.values() for limit in limits)
    assert rotary_thresholds(shrink(FULL_SIZE["phi3, longrope"])) == (24,)


def test_trials_stay_inside_a_table_of_positions() -> None:
    twin = shrink(AutoConfig.for_model("gpt2"))
    assert max(trial_lengths(twin)) + DECODE_STEPS <= twin.n_positions


def test_the_ratio_that_longrope_scales_by_is_kept() -> None:
    full, twin = FULL_SIZE["phi3, longrope"], shrink(FULL_SIZE["phi3, longrope"])
    assert twin.max_position_embeddings / twin.original_max_position_embeddings == (
        full.max_position_embeddings / full.original_max_position_embeddings
    )
    assert len(twin.rope_parameters["long_factor"]) == len(twin.rope_parameters["short_factor"]) == 8


def test_grouped_queries_experts_and_dense_first_layers_keep_their_shape() -> None:
    llama, opt, deepseek = (shrink(FULL_SIZE[name]) for name in ("llama, llama3 rope", "opt", "deepseek_v3, yarn"))
    assert (llama.num_attention_heads, llama.num_key_value_heads) == (4, 2)
    assert opt.num_attention_heads == 4
    assert 0 < deepseek.first_k_dense_replace < deepseek.num_hidden_layers
    assert deepseek.topk_group < deepseek.n_group < deepseek.n_routed_experts
    assert deepseek.q_lora_rank is not None
    assert shrink(AutoConfig.for_model("deepseek_v3", q_lora_rank=None)).q_lora_rank is None


def test_layers_that_share_keys_and_values_have_layers_to_share_with() -> None:
    twin = shrink(FULL_SIZE["gemma3n_text"])
    unshared = twin.layer_types[: twin.num_hidden_layers - twin.num_kv_shared_layers]
    assert twin.num_kv_shared_layers >= 2
    assert set(unshared) == set(twin.layer_types)


def test_a_config_without_sizes_cannot_be_shrunk() -> None:
    with pytest.raises(CannotShrink, match="blt"):
        shrink(AutoConfig.for_model("blt"))


def test_the_same_seed_gives_the_same_twin_and_another_seed_another(full: PreTrainedConfig) -> None:
    twin = shrink(full)
    state = torch.random.get_rng_state()
    first, second, other = (make_twin(twin, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def one_of_each_kind(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """One parameter of each name within a layer, taken from the first layers and the last in turn."""
    kinds: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    return {names[-(turn % 2)]: model.get_parameter(names[-(turn % 2)]) for turn, names in enumerate(kinds.values())}


def test_an_error_in_any_weight_shows_in_the_logits(full: PreTrainedConfig) -> None:
    model = make_twin(shrink(full))
    ids, source = torch.tensor(trial_prompts([27])), torch.Generator().manual_seed(1)
    with torch.no_grad():
        right = model(ids, use_cache=False).logits
        for name, weight in one_of_each_kind(model).items():
            kept = weight.data.clone()
            weight.data.mul_(1.1).add_(0.1 * kept.abs().mean() * torch.randn(kept.shape, generator=source))
            wrong = model(ids, use_cache=False).logits
            weight.data = kept
            unfelt = name.endswith("k_proj.bias")  # softmax does not feel what is added to every key before rotation
            assert unfelt or (wrong - right).abs().max() > 1e-3 * right.std(), name


def test_the_reference_is_what_generate_gives_each_sequence_alone(full: PreTrainedConfig) -> None:
    model = make_twin(shrink(full))
    prompts = trial_prompts([5, 14])
    for prompt, reference in zip(prompts, reference_logits(model, prompts), strict=True):
        cache, ids = DynamicCache(config=model.config), torch.tensor([prompt])
        for step in range(DECODE_STEPS):
            with torch.no_grad():
                logits = model(ids, past_key_values=cache, use_cache=True).logits[0, -1]
            torch.testing.assert_close(logits, reference.step_logits[step], rtol=1e-4, atol=1e-4)
            ids = logits.argmax()[None, None]
            assert ids.item() == reference.tokens[step]
        torch.testing.assert_close(reference.prompt_logits[-1], reference.step_logits[0], rtol=1e-4, atol=1e-4)


def test_a_reference_does_not_depend_on_the_prompts_read_before_it() -> None:
    """Rotary tables that grow with the longest sequence met (dynamic) are those the sequence would have alone."""
    twin = shrink(FULL_SIZE["llama, dynamic rope"])
    shorter, longer = trial_prompts([32, 33])
    after, alone = reference_logits(make_twin(twin), [shorter, longer])[1], reference_logits(make_twin(twin), [longer])
    assert after.tokens == alone[0].tokens
    torch.testing.assert_close(after.step_logits, alone[0].step_logits)


def test_no_token_ends_a_reference() -> None:
    model = make_twin(shrink(FULL_SIZE["gemma3_text"]))
    assert [len(reference.tokens) for reference in reference_logits(model, trial_prompts([3, 9]))] == [DECODE_STEPS] * 2


def test_the_text_part_of_a_composite_config_is_found() -> None:
    assert text_config_of(AutoConfig.for_model("gemma3")).model_type == "gemma3_text"
    assert text_config_of(AutoConfig.for_model("mistral3")).model_type == "mistral"
    assert text_config_of(AutoConfig.for_model("llama4")).model_type == "llama4_text"
    assert text_config_of(AutoConfig.for_model("qwen3_vl")).model_type == "qwen3"
    assert text_config_of(FULL_SIZE["opt"]) is FULL_SIZE["opt"]


def test_encoder_decoders_and_encoders_are_refused_by_name() -> None:
    for model_type in ("t5", "bart", "whisper", "bert"):
        with pytest.raises(UnsupportedModel, match=rf"^{model_type} is an encoder"):
            text_config_of(AutoConfig.for_model(model_type))


@pytest.mark.parametrize("model_type", COMPOSITES)
def test_the_text_part_alone_gives_the_logits_of_the_composite_model(model_type: str, tmp_path: Path) -> None:
    composite = composite_model(model_type)
    composite.save_pretrained(tmp_path)
    text = text_config_of(composite.config)
    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
    alone = causal.from_pretrained(tmp_path, config=text, key_mapping=dict(TEXT_NAMES), attn_implementation="eager")
    ids = torch.tensor(trial_prompts([19]))
    with torch.no_grad():
        torch.testing.assert_close(alone.eval()(ids).logits, composite(ids).logits, rtol=1e-5, atol=1e-5)
