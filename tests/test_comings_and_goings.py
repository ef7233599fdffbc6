"""Requests of random priorities that share beginnings come and go in a cache too small for all: no token changes."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import greedy_answers, random_model, random_prompts, save
from placements import any_plan, in_small_pages, placement
from scripted_arrivals import ScriptedArrivals, alone, request, served
from windlass.engine.llm import LLM
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

TOKENS = 7
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
DRAWN = SamplingParams(max_tokens=TOKENS, temperature=1.0, ignore_eos=True, seed=11, n=3)
WORK = Workload(12, 60, TOKENS)


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


def prompts() -> list[list[int]]:
    """Families that begin alike, of which some are the same, and strangers."""
    long, short, *ends = random_prompts(40, 17, 3, 9, 1, 12, 5, 30, 2)
    family = [long, long + ends[0], long + ends[1], long, short + ends[2], short + ends[3], short, long[:25] + ends[4]]
    return [*family, ends[5], ends[6], long + ends[0]]


Expected = tuple[Path, list[list[int]], list[list[tuple[int, ...]]]]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """A tiny llama in float32, what transformers answers, and three drawn answers to each prompt alone."""
    folder, model = tmp_path_factory.mktemp("llama"), random_model("llama")
    save(model, folder)
    with pytest.MonkeyPatch.context() as patched, _opened(patched, folder) as llm:
        drawn = [llm.generate([{"prompt_token_ids": prompt}], DRAWN)[0] for prompt in prompts()]
    return (
        folder,
        greedy_answers(model, prompts(), TOKENS),
        [[answer.token_ids for answer in output.outputs] for output in drawn],
    )


def _opened(patched: pytest.MonkeyPatch, folder: Path) -> LLM:
    patched.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
    return LLM(folder)


@pytest.mark.parametrize("seed", range(6))
def test_whoever_comes_and_goes(llama: Expected, seed: int) -> None:
    folder, greedy, drawn = llama
    chance = random.Random(seed)
    script: dict[int, list[Request]] = {}
    gone: dict[int, list[str]] = {}
    for number in range(22):
        at = chance.randrange(30)
        params = chance.choice((GREEDY, GREEDY, DRAWN))
        prompt = prompts()[number % len(greedy)]
        script.setdefault(at, []).append(request(number, prompt, params, chance.choice((0, 1, 1, 2))))
        if chance.random() < 0.25:
            gone.setdefault(at + chance.randrange(12), []).append(str(number))
    with LLM(folder, interactive_reserve=chance.choice((0, 32))) as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts(), TOKENS), placement(0, 1, 1), chance.choice((7, 11, 23, 90)))
        llm.adopt(replace(plan, block_size=chance.choice((1, 3, 5)), num_pages=chance.choice((9, 14, 30))))
        arrivals = ScriptedArrivals(script, gone)
        got = {key: output for key, output in served(llm, arrivals, WORK).items() if output.finished}
    assert arrivals.states[-1].set_aside, "nobody was in anybody's way"
    assert got.keys() >= {str(number) for number in range(22)} - {number for ids in gone.values() for number in ids}
    for key, output in got.items():
        place = int(key) % len(greedy)
        answers = [answer.token_ids for answer in output.outputs]
        assert answers == (drawn[place] if len(answers) > 1 else [tuple(greedy[place])]), key


def test_packed_keys_and_values_are_read_anew_as_they_were(llama: Expected) -> None:
    """What is packed is rounded, so the answers are held against those that the same cache gives undisturbed."""
    rows = [request(number, prompt, GREEDY, 1) for number, prompt in enumerate(prompts()[:6])]
    people = {at: [request(100 + at, prompts()[8], replace(GREEDY, max_tokens=2))] for at in range(2, 20, 3)}
    with LLM(llama[0], kv_cache_dtype="int8") as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts(), TOKENS), placement(0, 1, 1), 23)
        llm.adopt(replace(plan, block_size=2, num_pages=14))
        expected = alone(llm, rows)
        arrivals = ScriptedArrivals({0: rows} | people)
        got = served(llm, arrivals, WORK)
    assert arrivals.states[-1].set_aside > 3
    assert [got[key].outputs for key in expected] == [output.outputs for output in expected.values()]
