"""Penalties, biases and bans beside transformers and the formulas of those who made them, and each row for itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor, SuppressTokensLogitsProcessor
from transformers.generation import SequenceBiasLogitsProcessor

from checkpoints import random_model, random_prompts, save
from windlass.engine.llm import LLM
from windlass.engine.logit_changes import LogitChanges
from windlass.engine.sampler import SamplerRow, sample
from windlass.errors import RequestError, UsageError
from windlass.facts.sampling_params import SamplingParams
from windlass.packaged_model import packaged_model_folder

V = 60
IDS = st.lists(st.integers(0, V - 1), max_size=30)


def logits_of(seed: int) -> torch.Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(seed)) * 3


def changes(prompt: list[int], answer: list[int], **params: Any) -> LogitChanges:
    made = LogitChanges(SamplingParams(**params), prompt)
    for token_id in answer:
        made.take(token_id)
    return made


def changed(prompt: list[int], answer: list[int], seed: int, **params: Any) -> torch.Tensor:
    return torch.from_numpy(changes(prompt, answer, **params).applied(logits_of(seed).numpy()))


@given(prompt=IDS, answer=IDS, seed=st.integers(0, 9), penalty=st.sampled_from([0.5, 1.1, 1.3, 2.0]))
def test_the_repetition_penalty_is_that_of_transformers(
    prompt: list[int], answer: list[int], seed: int, penalty: float
) -> None:
    ids = torch.tensor([[*prompt, *answer]], dtype=torch.long)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits_of(seed)[None])[0]
    assert torch.equal(changed(prompt, answer, seed, repetition_penalty=penalty), theirs)


@given(prompt=IDS, answer=IDS, frequency=st.floats(-2, 2), presence=st.floats(-2, 2))
def test_the_presence_and_frequency_penalties_are_openais(
    prompt: list[int], answer: list[int], frequency: float, presence: float
) -> None:
    """mu[j] - c[j] * frequency_penalty - float(c[j] > 0) * presence_penalty, c counted in the answer alone."""
    counts = torch.tensor(np.bincount(answer, minlength=V) if answer else np.zeros(V, int))
    expected = logits_of(1).double() - counts * frequency - (counts > 0).double() * presence
    ours = changed(prompt, answer, 1, frequency_penalty=frequency, presence_penalty=presence)
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=0)


@given(biases=st.dictionaries(st.integers(0, V - 1), st.floats(-100, 100, width=32), min_size=1, max_size=9))
def test_a_bias_is_that_of_transformers(biases: dict[int, float]) -> None:
    theirs = SequenceBiasLogitsProcessor([[[token_id], bias] for token_id, bias in biases.items()])
    expected = theirs(torch.zeros(1, 1, dtype=torch.long), logits_of(2)[None])[0]
    assert torch.equal(changed([1], [], 2, logit_bias=biases), expected)


def test_only_allowed_ids_may_come_whatever_else_is_asked() -> None:
    allowed = [3, 7, 50]
    others = [token_id for token_id in range(V) if token_id not in allowed]
    theirs = SuppressTokensLogitsProcessor(others)(torch.zeros(1, 1, dtype=torch.long), logits_of(3)[None])[0]
    assert torch.equal(changed([1], [], 3, allowed_token_ids=allowed), theirs)
    busy = changed([4], [5, 7], 3, allowed_token_ids=allowed, logit_bias={4: 100}, repetition_penalty=0.5)
    assert busy.isfinite().nonzero()[:, 0].tolist() == allowed


def test_biases_come_before_penalties_as_in_vllm() -> None:
    raw = float(logits_of(4)[9])
    ours = changed([9], [9, 9], 4, logit_bias={9: 50}, repetition_penalty=2.0, frequency_penalty=0.5)
    assert float(ours[9]) == pytest.approx((raw + 50) / 2 - 1.0, abs=1e-5)


def test_the_logits_themselves_are_left_alone() -> None:
    raw = logits_of(5).numpy()
    before = raw.copy()
    changes([1], [2], allowed_token_ids=[1, 2], logit_bias={1: 5}, frequency_penalty=1).applied(raw)
    assert np.array_equal(raw, before)


@given(data=st.data(), count=st.integers(1, 6))
def test_a_row_draws_the_same_whatever_else_is_in_the_block(data: st.DataObject, count: int) -> None:
    asked = st.fixed_dictionaries(
        {"temperature": st.sampled_from([0.0, 1.0])},
        optional={
            "repetition_penalty": st.just(1.3), "frequency_penalty": st.just(1.0), "logit_bias": st.just({5: 4.0}),
            "allowed_token_ids": st.just(tuple(range(9))),
        },
    )  # fmt: skip
    rows = []
    for place in range(count):
        params = SamplingParams(**data.draw(asked))
        made = LogitChanges(params, data.draw(IDS)) if params.changes_logits else None
        rows.append(SamplerRow(params, seed=place, changes=made))
    block = torch.stack([logits_of(place) for place in range(count)])
    assert sample(block, rows) == [sample(block[i : i + 1], rows[i : i + 1])[0] for i in range(count)]


def test_bans_that_leave_nothing_give_that_row_no_token_and_the_other_its_own() -> None:
    params = SamplingParams(temperature=0, allowed_token_ids=[3])
    row = SamplerRow(params, 0, banned=(3,), changes=LogitChanges(params, [1]))
    free = SamplerRow(SamplingParams(temperature=0), 0)
    none, some = sample(torch.stack([logits_of(0), logits_of(1)]), [row, free])
    assert none is None
    assert some is not None and some.token_id == int(logits_of(1).argmax())


@pytest.mark.parametrize("penalty", [1e-300, 1e-5, 1e5, 1e300])
def test_a_repetition_penalty_that_would_overflow_is_refused(penalty: float) -> None:
    with pytest.raises(UsageError, match="repetition_penalty must be between 0.0001 and 10000.0"):
        SamplingParams(repetition_penalty=penalty)


@pytest.mark.parametrize("temperature", [1e39, 1.7e308])
def test_no_temperature_brings_back_what_is_banned(temperature: float) -> None:
    params = SamplingParams(temperature=temperature, top_p=0.9, min_p=0.1, allowed_token_ids=[3, 4])
    rows = [SamplerRow(params, seed, changes=LogitChanges(params, [1])) for seed in range(40)]
    drawn = sample(logits_of(0).expand(40, V), rows)
    assert {token.token_id for token in drawn if token is not None} == {3, 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = random_model("llama")
    return made, save(made, tmp_path_factory.mktemp("llama"))


class TestInTheEngine:
    """Answers of a tiny model of random weights, together and alone."""

    @pytest.fixture
    def llm(self, model: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        with LLM(model[1]) as llm:
            yield llm

    def test_greedy_answers_under_a_repetition_penalty_are_those_of_transformers(
        self, model: tuple[Any, Path], llm: LLM
    ) -> None:
        prompts = random_prompts(5, 17, 9)
        penalised = SamplingParams(max_tokens=24, temperature=0, repetition_penalty=1.3, ignore_eos=True)
        plain = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True)
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        ours = [list(out.outputs[0].token_ids) for out in llm.generate(asked, [penalised, plain, penalised])]
        for prompt, penalty, answer in zip(prompts, (1.3, 1.0, 1.3), ours, strict=True):
            ids = torch.tensor([prompt])
            theirs = model[0].generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0,
                repetition_penalty=penalty,
            )  # fmt: skip
            assert answer == theirs[0, len(prompt) :].tolist()
        unpenalised = [list(out.outputs[0].token_ids) for out in llm.generate(asked, plain)]
        assert [a == b for a, b in zip(ours, unpenalised, strict=True)] == [False, True, False]

    def test_each_of_several_answers_counts_its_own_tokens(self, llm: LLM) -> None:
        params = SamplingParams(n=3, max_tokens=12, allowed_token_ids=range(8, 20), frequency_penalty=2.0, seed=1,
                                logit_bias=dict.fromkeys(range(8, 20), 50.0), ignore_eos=True)  # fmt: skip
        (output,) = llm.generate({"prompt_token_ids": [9, 9, 9]}, params)
        assert all(set(answer.token_ids) <= set(range(8, 20)) for answer in output.outputs)
        (again,) = llm.generate([{"prompt_token_ids": [9, 9, 9]}], params)
        assert [a.token_ids for a in again.outputs] == [a.token_ids for a in output.outputs]

    def test_ids_beyond_the_vocabulary_and_words_without_a_tokenizer_are_refused_before_anything_runs(
        self, llm: LLM
    ) -> None:
        prompt = {"prompt_token_ids": [5]}
        with pytest.raises(RequestError, match="allowed_token_ids holds token id 128"):
            llm.generate(prompt, SamplingParams(allowed_token_ids=[128]))
        with pytest.raises(UsageError, match="has no tokenizer"):
            llm.generate(prompt, SamplingParams(bad_words=["foul"]))
        with pytest.raises(UsageError, match="allowed_token_ids holds only ids that end an answer, and min_tokens=2"):
            llm.generate(prompt, SamplingParams(allowed_token_ids=[7], stop_token_ids=[7], min_tokens=2))
        assert llm.report.load_seconds == 0


class TestBadWords:
    """With the model in the box, whose tokens are pieces of words."""

    @pytest.fixture
    def llm(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        with LLM(packaged_model_folder()) as llm:
            yield llm

    def test_a_text_that_would_come_does_not(self, llm: LLM) -> None:
        free = SamplingParams(max_tokens=40, temperature=0)
        (plain,) = llm.generate("ROMEO:\nWhat", free)
        word = plain.outputs[0].text.split()[1].strip(",.;:!?")
        (without,) = llm.generate("ROMEO:\nWhat", SamplingParams(max_tokens=40, temperature=0, bad_words=[word]))
        assert f" {word} " in f" {plain.outputs[0].text} "
        assert f" {word} " not in f" {without.outputs[0].text} "

    def test_an_answer_that_may_have_no_token_ends_and_the_one_beside_it_goes_on(self, llm: LLM) -> None:
        free = SamplingParams(max_tokens=8, temperature=0)
        (token_id,) = llm.tokenizer.encode_plain("O")
        stuck = SamplingParams(max_tokens=8, temperature=0, allowed_token_ids=[token_id], bad_words=["O"])
        (alone,) = llm.generate("Once", free)
        ended, beside = llm.generate(["Once", "Once"], [stuck, free])
        assert (ended.outputs[0].token_ids, ended.outputs[0].finish_reason) == ((), "length")
        assert "leave no token" in str(ended.outputs[0].stop_reason)
        assert beside.outputs[0].token_ids == alone.outputs[0].token_ids
