"""A benchmark asks the same work of every machine and tells what each round measured."""

import json
from typing import cast

import pytest

from fake_llm import FakeLLM
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.benchmark_result import BenchmarkWork
from windlass.facts.workload import Workload
from windlass.jobs.benchmark import benchmark, prepare


def engine() -> tuple[FakeLLM, LLM]:
    fake = FakeLLM()
    return fake, cast(LLM, fake)


def test_prompts_have_the_length_asked_for_and_run_past_the_end_tokens() -> None:
    fake, llm = engine()
    benchmark(llm, "model", BenchmarkWork(prompt_len=5, gen_len=3, num_prompts=4))
    assert [len(prompt) for prompt, _ in fake.asked] == [5] * 4
    assert all(0 <= token < 256 for prompt, _ in fake.asked for token in prompt)
    params = fake.asked[0][1]
    assert (params.max_tokens, params.temperature, params.ignore_eos) == (3, 0.0, True)


def test_the_same_seed_gives_the_same_prompts_and_another_gives_others() -> None:
    asked = []
    for seed in (0, 0, 1):
        fake, llm = engine()
        benchmark(llm, "model", BenchmarkWork(num_prompts=2, gen_len=1, seed=seed))
        asked.append([prompt for prompt, _ in fake.asked])
    assert asked[0] == asked[1] != asked[2]


def test_every_round_is_measured_alone_and_the_report_covers_all() -> None:
    _, llm = engine()
    result = benchmark(llm, "model", BenchmarkWork(prompt_len=8, gen_len=5, num_prompts=2, rounds=3))
    assert [each.prefill_rate for each in result.rounds] == [16.0] * 3
    assert [each.decode_rate for each in result.rounds] == [4.0] * 3
    assert [each.seconds_per_pass for each in result.rounds] == [0.5] * 3
    assert result.report.prefill_tokens == 48


def test_one_token_a_prompt_has_no_decode_pass_and_divides_by_nothing() -> None:
    _, llm = engine()
    assert benchmark(llm, "model", BenchmarkWork(gen_len=1, num_prompts=1)).rounds[0].seconds_per_pass == 0.0


def test_the_model_is_loaded_for_this_work_before_the_rounds() -> None:
    fake, llm = engine()
    prepare(llm, BenchmarkWork(prompt_len=8, gen_len=5, num_prompts=2))
    assert fake.workloads == [Workload(2, 8, 5)]


def test_work_longer_than_the_model_is_refused_before_it_is_loaded() -> None:
    fake, llm = engine()
    with pytest.raises(UsageError, match="60 prompt tokens and 5 to generate exceed the 64 .* lower --prompt-len"):
        prepare(llm, BenchmarkWork(prompt_len=60, gen_len=5))
    assert fake.workloads == []


@pytest.mark.parametrize("name", ["prompt_len", "gen_len", "num_prompts", "rounds"])
def test_work_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be 1 or more, got 0"):
        BenchmarkWork(**{name: 0})


def test_json_holds_the_settings_the_report_the_rounds_and_the_plan() -> None:
    _, llm = engine()
    found = json.loads(json.dumps(benchmark(llm, "model", BenchmarkWork(rounds=2)).as_dict()))
    assert (found["model"], found["prompt_len"], found["num_prompts"]) == ("model", 16, 32)
    assert {"decode_rate", "prefill_rate", "seconds_per_pass", "bytes_read", "bound_by"} <= set(found)
    assert len(found["rounds_measured"]) == 2
    assert found["plan"]["memory"]["base"] == 400


def test_people_read_the_medians_when_there_are_rounds() -> None:
    _, llm = engine()
    result = benchmark(llm, "model", BenchmarkWork(prompt_len=8, gen_len=5, num_prompts=2, rounds=2))
    assert result.lines()[0] == "work     2 prompts of 8 tokens, 5 generated for each"
    assert result.lines()[-1].startswith("rounds   2, medians (least to most): prefill 16 (16 to 16) tok/s")
