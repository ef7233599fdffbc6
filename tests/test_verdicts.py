"""Support is proven, not assumed: the shipped verdicts are made again here, and what must be refused is refused."""

import json
from pathlib import Path

import pytest
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from windlass.engine import verdicts
from windlass.engine.verdicts import SHIPPED, fingerprint_of, require_proven, try_now, verdict_of
from windlass.errors import StorageError, UnsupportedModel
from windlass.facts.verdict import Verdict
from windlass.model.shrink import CannotShrink, shrink

SHIPPED_VERDICTS = [Verdict(**entry) for entry in json.loads(SHIPPED.read_text(encoding="utf-8"))]
# State beside attention, attention of their own: they would differ in silence.
STATE, CACHE, ATTENTION = "keeps state beside keys and values", "a cache of its own kind", "transformers' attention"
REFUSED = {
    "qwen3_next": STATE,
    "qwen3_5_text": STATE,
    "jamba": STATE,
    "olmo_hybrid": STATE,
    "minimax": CACHE,
    "recurrent_gemma": "",
    "bloom": ATTENTION,
    "falcon": ATTENTION,
    "mpt": ATTENTION,
    "mamba": ATTENTION,
    "deepseek_v32": "picks keys by an index",
}


@pytest.mark.parametrize("shipped", SHIPPED_VERDICTS, ids=lambda verdict: verdict.model_type)
def test_every_shipped_verdict_comes_out_of_a_trial_again(shipped: Verdict) -> None:
    if shipped.transformers != transformers.__version__:
        pytest.skip(f"made with transformers {shipped.transformers}, this is {transformers.__version__}")
    twin = shrink(AutoConfig.for_model(shipped.model_type))
    assert fingerprint_of(twin) == shipped.fingerprint, "run dev/make_verdicts.py"
    assert try_now(twin, shipped.fingerprint).outcome == shipped.outcome == "proven"


@pytest.mark.parametrize(("model_type", "why"), REFUSED.items())
def test_what_is_known_to_differ_is_refused_by_name_before_any_weight_is_read(model_type: str, why: str) -> None:
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know {model_type}")
    with pytest.raises(UnsupportedModel, match=f"{model_type} is not proven .*{why}.*choose another model"):
        require_proven(AutoConfig.for_model(model_type), unproven=False)


def test_unproven_does_not_let_through_what_was_seen_to_differ() -> None:
    with pytest.raises(UnsupportedModel):
        require_proven(AutoConfig.for_model("bloom"), unproven=True)


def test_unproven_lets_through_only_what_cannot_be_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: PreTrainedConfig) -> PreTrainedConfig:
        raise CannotShrink("its layers cannot be counted")

    monkeypatch.setattr(verdicts, "shrink", refuse)
    config = AutoConfig.for_model("llama")
    with pytest.raises(UnsupportedModel, match="its layers cannot be counted; pass --unproven"):
        require_proven(config, unproven=False)
    require_proven(config, unproven=True)


def test_a_verdict_is_kept_and_a_broken_one_is_made_again(own_cache: Path) -> None:
    config = AutoConfig.for_model("llama", num_hidden_layers=1, attention_bias=True)
    first = verdict_of(config)
    (kept,) = (own_cache / "verdicts").glob(f"llama-{first.fingerprint}-*.json")
    assert Verdict(**json.loads(kept.read_text())) == first
    kept.write_text("{ torn")
    assert verdict_of(config).outcome == first.outcome == "proven"


def test_a_full_disk_is_raised_and_never_kept_as_a_verdict(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    def full(config: PreTrainedConfig) -> tuple[float, str]:
        raise StorageError("no room")

    monkeypatch.setattr(verdicts, "largest_difference", full)
    config = AutoConfig.for_model("llama", mlp_bias=True)
    with pytest.raises(StorageError):
        verdict_of(config)
    assert not list((own_cache / "verdicts").glob(f"llama-{fingerprint_of(shrink(config))}-*.json"))
