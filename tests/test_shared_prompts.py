"""`n` answers to a request: the prompt is read and stored once, and every answer is what it would be on its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import random_model, random_prompts, save
from windlass.engine.generation import Generation
from windlass.engine.llm import LLM
from windlass.facts.completion import CompletionOutput
from windlass.facts.plan import Plan
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

PAGE = 8
FOUR = SamplingParams(n=4, seed=11, max_tokens=14, ignore_eos=True, logprobs=0)


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proving an architecture takes seconds and has tests of its own."""
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_model("llama"), tmp_path_factory.mktemp("llama"))


def small_pages(folder: Path, block: int, pass_tokens: int = 4096, num_pages: int | None = None) -> Plan:
    """A plan with pages of 8 tokens for a block of sequences of at most 96 tokens."""
    with LLM(folder) as llm:
        plan = llm.prepare(Workload(block, 64, 33))
    return replace(
        plan, block_size=block, page_tokens=PAGE, num_pages=num_pages or block * 12, pass_tokens=max(pass_tokens, block)
    )


def together(llm: LLM, prompt: list[int], params: SamplingParams) -> list[CompletionOutput]:
    (output,) = llm.generate({"prompt_token_ids": prompt}, params)
    assert [answer.index for answer in output.outputs] == list(range(params.n))
    return list(output.outputs)


def separately(llm: LLM, prompt: list[int], params: SamplingParams) -> list[CompletionOutput]:
    """The same answers, but each as a request of its own that reads its own prompt."""
    llm.prepare(Workload(params.n, len(prompt), params.max_tokens or 1))
    requests = [Request(str(1000 + index), None, tuple(prompt), params) for index in range(params.n)]
    outputs = []
    for index, request in enumerate(requests):
        llm._engine.prefixes.clear()
        one = [llm._admission.answers(request)[index]]
        outputs += Generation(llm._engine, llm._measurements).run([one])
    llm._engine.prefixes.clear()
    return [output.outputs[0] for output in outputs]


def nothing_is_held(llm: LLM) -> None:
    """But for what prompts began with, which rests."""
    table = llm._engine.cache.table
    table.check()
    assert table.room == table.num_pages and not table.pages


def same(left: list[CompletionOutput], right: list[CompletionOutput]) -> None:
    for one, other in zip(left, right, strict=True):
        assert (one.index, one.token_ids, one.finish_reason) == (other.index, other.token_ids, other.finish_reason)
        assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "phi3", "deepseek_v3"])
@pytest.mark.parametrize(("block", "pass_tokens"), [(4, 4096), (3, 7), (1, 4096)])
def test_the_prompt_is_read_once_and_the_answers_are_those_of_prompts_read_apart(
    architecture: str, block: int, pass_tokens: int, tmp_path: Path
) -> None:
    """Windows of 8, latents, a prompt that is read anew at 16; pages filled to the end, and in part."""
    folder = save(random_model(architecture), tmp_path)
    with LLM(folder, plan=small_pages(folder, block, pass_tokens)) as llm:
        for length in (5, 16, 35):
            (prompt,) = random_prompts(length)
            before = llm.report.prefill_tokens
            answers = together(llm, prompt, FOUR)
            read = llm.report.prefill_tokens - before
            if architecture != "phi3":  # which reads everything again at 16
                # Who comes in later reads what the prompt's last page holds, and the token that was drawn for it.
                assert length <= read <= length + (4 - block) * (length % PAGE + 1)
            assert len({answer.token_ids for answer in answers}) == 4, "the draws differ, or nothing is shown"
            same(answers, separately(llm, prompt, FOUR))
            assert architecture == "phi3" or llm.report.prefill_tokens - before == read + 4 * length
            nothing_is_held(llm)


def test_the_pages_that_a_prompt_fills_are_held_once(llama: Path) -> None:
    """35 tokens fill 4 pages; 14 more end in the 7th. The cache has just as many pages as that takes for 4 answers."""
    needed = 4 + 4 * (6 - 4)
    (prompt,) = random_prompts(35)
    with LLM(llama, plan=small_pages(llama, 4, num_pages=needed)) as llm:
        for output in llm.stream({"prompt_token_ids": prompt}, FOUR):
            llm._engine.cache.table.check()
            if not output.finished:
                assert not llm._engine.cache.table.room
        assert llm.report.decode_passes == 13, "all four were one block"
        same(list(output.outputs), separately(llm, prompt, FOUR))


@pytest.mark.parametrize("block", [4, 2, 1])
def test_answers_that_end_with_their_first_token_leave_the_prompt_to_the_others(llama: Path, block: int) -> None:
    (prompt,) = random_prompts(19)
    with LLM(llama, plan=small_pages(llama, block)) as llm:
        firsts = [answer.token_ids[0] for answer in together(llm, prompt, FOUR)]
        for ends in ([firsts[0]], firsts[1:3], firsts):
            params = replace(FOUR, stop_token_ids=ends)
            answers = together(llm, prompt, params)
            assert [len(answer.token_ids) for answer in answers if answer.token_ids[0] in ends] == [1] * sum(
                first in ends for first in firsts
            )
            same(answers, separately(llm, prompt, params))
            nothing_is_held(llm)


def test_one_token_each_takes_one_pass_however_small_the_block(llama: Path) -> None:
    with LLM(llama, plan=small_pages(llama, 1)) as llm:
        together(llm, random_prompts(9)[0], replace(FOUR, max_tokens=1))
        assert (llm.report.prefill_tokens, llm.report.decode_passes) == (9, 0)


@pytest.mark.parametrize("block", [6, 2])
def test_requests_of_several_answers_beside_others(llama: Path, block: int) -> None:
    prompts = random_prompts(10, 24, 3)
    counts = [replace(FOUR, n=n, seed=n) for n in (3, 1, 2)]
    with LLM(llama, plan=small_pages(llama, block)) as llm:
        outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], counts)
        late = 0 if block == 6 else 3
        assert 37 <= llm.report.prefill_tokens <= 37 + late * PAGE
        for prompt, params, output in zip(prompts, counts, outputs, strict=True):
            same(list(output.outputs), separately(llm, prompt, params))


def test_a_stream_left_in_the_middle_gives_every_page_back(llama: Path) -> None:
    (prompt,) = random_prompts(9)
    with LLM(llama, plan=small_pages(llama, 1)) as llm:
        expected = together(llm, prompt, FOUR)
        for asked in (1, 20, 40):
            stream = llm.stream({"prompt_token_ids": prompt}, FOUR)
            for _ in range(asked):
                next(stream)
            stream.close()
            nothing_is_held(llm)
        same(together(llm, prompt, FOUR), expected)
