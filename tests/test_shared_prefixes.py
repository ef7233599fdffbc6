"""Prompts that begin alike: what they share is read once, whenever they come, and no answer changes by it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import greedy_answers, random_model, random_prompts, save
from placements import any_plan, in_small_pages, placement
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

TOKENS = 6
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
PAGE = 8
ON_HOST = placement(0.0, 1.0, 1.0)
DEVICE, MEMORY = "sim:rate=2GB/s,latency=20us,delay=400us,seed=4", "200MiB"


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


def prompts() -> list[list[int]]:
    """Two families of prompts, with 40 and with 19 tokens in common, one that others begin with, and a stranger."""
    long, short, *ends = random_prompts(40, 19, 3, 9, 1, 12, 5, 30)
    return [long + ends[0], long + ends[1], short + ends[2], long, short + ends[3], long + ends[4], ends[5]]


def answers(llm: LLM, asked: list[list[int]]) -> list[list[int]]:
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in asked], GREEDY)
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """A tiny llama, and what transformers answers."""
    folder, model = tmp_path_factory.mktemp("llama"), random_model("llama")
    save(model, folder)
    return folder, greedy_answers(model, prompts(), TOKENS)


@pytest.mark.parametrize("block", [1, 3, 7])
@pytest.mark.parametrize("pass_tokens", [11, 400])
def test_what_they_share_is_read_once(llama: tuple[Path, list[list[int]]], block: int, pass_tokens: int) -> None:
    folder, expected = llama
    with LLM(folder) as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts(), TOKENS), ON_HOST, pass_tokens)
        llm.adopt(replace(plan, block_size=block))
        assert answers(llm, prompts()) == expected
        shared = 3 * 40 + 2 * 16 - 40 - 16 + 32  # the prompt that is the family's beginning reads its last page anew
        assert llm.report.prefill_tokens == sum(map(len, prompts())) - shared
        before = llm.report.prefill_tokens
        assert answers(llm, prompts()) == expected
        again = llm.report.prefill_tokens - before
        assert again <= len(prompts()) * PAGE, "a second call finds what the first has read"
        table = llm._engine.cache.table
        table.check()
        assert table.room == table.num_pages


def test_without_it_everything_is_read(llama: tuple[Path, list[list[int]]]) -> None:
    folder, expected = llama
    with LLM(folder, enable_prefix_caching=False) as llm:
        assert answers(llm, prompts()) == expected
        assert llm.report.prefill_tokens == sum(map(len, prompts()))


@pytest.mark.parametrize("wanted", [placement(0.5, 0.5, 0.5), placement(0.3, 0.4, 0.3, 0.4), placement(0.5, 0.5, 1.0)])
def test_wherever_the_pages_lie(llama: tuple[Path, list[list[int]]], tmp_path: Path, wanted: object) -> None:
    folder, expected = llama
    with LLM(folder, device=DEVICE, gpu_memory=MEMORY, offload_dir=tmp_path) as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts(), TOKENS), wanted, pass_tokens=19)
        llm.adopt(replace(plan, block_size=3, micro_batch_tokens=7))
        assert answers(llm, prompts()) == expected
        assert answers(llm, prompts()) == expected


@pytest.mark.parametrize("architecture", ["gemma3_text", "phi3", "deepseek_v3", "gpt_oss"])
def test_windows_latents_sinks_and_prompts_read_anew(architecture: str, tmp_path: Path) -> None:
    """phi3 reads a sequence anew when it outgrows 16 tokens: what could be written anew is not shared."""
    model = random_model(architecture)
    save(model, tmp_path)
    asked = [*prompts(), *random_prompts(9, 9), prompts()[2][:14]]
    with LLM(tmp_path) as llm:
        plan = in_small_pages(llm, any_plan(llm, asked, TOKENS), ON_HOST, pass_tokens=50)
        llm.adopt(replace(plan, block_size=4))
        assert answers(llm, asked) == greedy_answers(model, asked, TOKENS)


def test_a_cache_too_small_for_all_gives_up_what_rests(llama: tuple[Path, list[list[int]]]) -> None:
    folder, expected = llama
    with LLM(folder) as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts(), TOKENS), ON_HOST, pass_tokens=50)
        llm.adopt(replace(plan, block_size=7, num_pages=10))
        assert answers(llm, prompts()) == expected
        assert answers(llm, prompts()[::-1]) == expected[::-1]
        llm._engine.cache.table.check()


def test_whoever_follows_one_that_leaves_reads_for_itself(llama: tuple[Path, list[list[int]]]) -> None:
    """The first of the family ends the call in the middle of its prompt; the next call asks for the others."""
    folder, expected = llama
    with LLM(folder) as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts(), TOKENS), ON_HOST, pass_tokens=9)
        llm.adopt(replace(plan, block_size=7))
        requests = [Request(str(number), None, tuple(prompt), GREEDY) for number, prompt in enumerate(prompts())]
        assert list(llm.answer(requests, Workload(7, 60, TOKENS), until=lambda: True)) == []
        table = llm._engine.cache.table
        table.check()
        assert table.room == table.num_pages and len(table.free) < table.num_pages, "what was read of it is kept"
        assert answers(llm, prompts()) == expected


class TestOneByOne:
    """`answer` takes requests as places fall free, and goes on from what an earlier run has drawn."""

    def test_no_more_is_asked_for_than_has_a_place(self, llama: tuple[Path, list[list[int]]]) -> None:
        folder, expected = llama
        drawn = list[int]()

        def endless() -> Iterator[Request]:
            for number, prompt in enumerate(prompts() * 3):
                drawn.append(number)
                yield Request(str(number), None, tuple(prompt), GREEDY)

        with LLM(folder, block_size=2) as llm:
            got = {}
            for done, output in enumerate(llm.answer(endless(), Workload(21, 60, TOKENS)), 1):
                assert len(drawn) <= done + 3
                got[int(output.request_id)] = list(output.outputs[0].token_ids)
            assert [got[number] for number in range(21)] == expected * 3

    @pytest.mark.parametrize("params", [GREEDY, replace(GREEDY, temperature=1.0, n=2, presence_penalty=0.5)])
    def test_it_goes_on_inside_an_answer(self, llama: tuple[Path, list[list[int]]], params: SamplingParams) -> None:
        folder, _ = llama
        fresh = [Request(str(number), None, tuple(prompt), params) for number, prompt in enumerate(prompts())]
        with LLM(folder) as llm:
            whole = {output.request_id: output for output in llm.answer(fresh, Workload(14, 60, TOKENS))}
            for cut in (1, 3, TOKENS):
                begun = [
                    replace(request, begun=tuple(out.token_ids[:cut] for out in whole[request.request_id].outputs))
                    for request in fresh
                ]
                resumed = {output.request_id: output for output in llm.answer(begun, Workload(14, 60, TOKENS))}
                assert resumed == whole

    def test_what_is_no_workload_or_no_request_is_said(self, llama: tuple[Path, list[list[int]]]) -> None:
        with LLM(llama[0]) as llm:
            with pytest.raises(UsageError, match="workload must be a Workload, got SamplingParams.* as in Workload"):
                llm.answer([], GREEDY)
            with pytest.raises(UsageError, match=r"a request must be a Request, got \[5\] \(list\)"):
                list(llm.answer([[5]], Workload(1, 5, TOKENS)))
