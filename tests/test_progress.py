"""Progress grows while a pass is under way: a pass over a model on disk may take minutes."""

from itertools import pairwise
from pathlib import Path

import pytest

from checkpoints import random_model, random_prompts, save
from windlass.engine.llm import LLM
from windlass.facts.progress import Progress
from windlass.facts.sampling_params import SamplingParams


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Progress]:
    """Of 4 prompts of 30 tokens in one pass and 5 tokens each, by a model of 3 layers; every slice is told."""
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
    monkeypatch.setattr("windlass.engine.measurements.INTERVAL", 0.0)
    told: list[Progress] = []
    prompts = [{"prompt_token_ids": prompt} for prompt in random_prompts(30, 30, 30, 30)]
    with LLM(save(random_model("llama"), tmp_path), on_progress=told.append) as llm:
        llm.generate(prompts, SamplingParams(max_tokens=5, temperature=0.0, ignore_eos=True))
    return told


def of(events: list[Progress], phase: str) -> list[Progress]:
    return [event for event in events if event.phase == phase]


def test_prefill_counts_the_layers_done(events: list[Progress]) -> None:
    assert [event.done for event in of(events, "prefill")] == [40, 80, 120, 120]


def test_decode_counts_the_layers_done(events: list[Progress]) -> None:
    done = [event.done for event in of(events, "decode")]
    assert done == [1, 2, 4, 4, 5, 6, 8, 8, 9, 10, 12, 12, 13, 14, 16, 16]


def test_it_never_goes_back_and_the_time_left_ends_at_nothing(events: list[Progress]) -> None:
    for phase in ("prefill", "decode"):
        told = of(events, phase)
        assert all(before.done <= after.done for before, after in pairwise(told))
        assert {event.total for event in told} == {told[-1].done}
        assert all(event.seconds_left > 0 for event in told if event.done < event.total)
        assert told[-1].seconds_left == 0
        for event in told:
            # The time left is what the rest takes at the rate so far: both are of the same, unrounded, count.
            left = event.total - event.seconds * event.tokens_per_second
            assert event.seconds_left * event.tokens_per_second == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("first", [0, 2])
def test_however_short_a_phase_is_its_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """With an interval longer than the run. After `first` of 9 tokens all answers end early, by a stop id."""
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
    monkeypatch.setattr("windlass.engine.measurements.INTERVAL", 1e9)
    told: list[Progress] = []
    prompt = {"prompt_token_ids": random_prompts(30)[0]}
    with LLM(save(random_model("llama"), tmp_path), on_progress=told.append) as llm:
        (whole,) = llm.generate(prompt, SamplingParams(max_tokens=9, temperature=0.0, ignore_eos=True))
        ids = whole.outputs[0].token_ids
        assert of(told, "load")[-1].done == of(told, "load")[-1].total > 0
        told.clear()
        stop = SamplingParams(max_tokens=9, temperature=0.0, stop_token_ids=[ids[first]])
        (short,) = llm.generate(prompt, stop)
    tokens = len(short.outputs[0].token_ids)
    expected = [("prefill", 30, 30)] + [("decode", tokens - 1, tokens - 1)] * (tokens > 1)
    assert [(event.phase, event.done, event.total) for event in told] == expected
    assert all(event.seconds_left == 0 for event in told)
