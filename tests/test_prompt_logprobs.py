"""Log probabilities of a prompt's own tokens, taken while it is read: transformers' own, and no answer changes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from checkpoints import greedy_answers, random_model, random_prompts, save
from windlass.engine.llm import LLM
from windlass.engine.logits_block import LogitsBlock
from windlass.engine.sampler import SamplerRow, sample
from windlass.engine.token_scores import TokenScores
from windlass.facts.completion import Logprob, RequestOutput
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.planner.residency import keep_only

# On both sides of the windows (8) and of the rope threshold (16); the shortest has nothing to score.
LENGTHS = (1, 2, 17, 11, 40)
TOKENS, TOP = 4, 3
ASKED = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True, prompt_logprobs=TOP)

Tables = Sequence[dict[int, Logprob] | None] | None


@pytest.fixture(autouse=True, scope="module")
def no_proof() -> Iterator[None]:
    """Proving an architecture takes seconds and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        yield


def asked(llm: LLM, prompts: list[list[int]], params: Any = ASKED) -> list[RequestOutput]:
    return llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)


def assert_tables(found: Tables, model: PreTrainedModel, prompt: list[int], ranked: bool = True) -> None:
    """The likeliest ids and the prompt's own, with transformers' numbers; `ranked`: the own one's place too."""
    assert found is not None and len(found) == len(prompt) and found[0] is None
    with torch.inference_mode():
        logits = model(torch.tensor([prompt]), use_cache=False).logits[0].float().log_softmax(-1)  # (T, V)
    for token, table, row in zip(prompt[1:], found[1:], logits[:-1], strict=True):
        assert table is not None
        values, ids = row.topk(TOP)
        assert list(table)[:TOP] == ids.tolist() and set(table) == {*ids.tolist(), token}
        assert [table[i].logprob for i in ids.tolist()] == pytest.approx(values.tolist(), abs=1e-4)
        assert table[token].logprob == pytest.approx(row[token].item(), abs=1e-4)
        assert [table[i].rank for i in ids.tolist()] == list(range(1, TOP + 1))
        if ranked or table[token].rank is not None:
            assert table[token].rank == 1 + int((row > row[token]).sum())


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "phi3", "qwen3_moe", "deepseek_v3", "gpt_oss"])
def test_transformers_numbers_resident_and_streamed_in_pieces(architecture: str, tmp_path: Path) -> None:
    model, prompts = random_model(architecture), random_prompts(*LENGTHS, most=96)
    save(model, tmp_path)
    answers = greedy_answers(model, prompts, TOKENS)
    with LLM(tmp_path) as llm:
        whole = keep_only(llm.opened.facts, llm.plan_for(Workload(5, 40, TOKENS, scored=True)), frozenset())
        for plan in (None, replace(whole, pass_tokens=13, micro_batch_tokens=5, block_size=3)):
            if plan is not None:
                llm.adopt(plan)
            for output, prompt, answer in zip(asked(llm, prompts), prompts, answers, strict=True):
                assert list(output.outputs[0].token_ids) == answer
                assert_tables(output.prompt_logprobs, model, prompt)


def test_a_head_that_streams_in_parts_gives_the_likeliest_of_all_parts(tmp_path: Path) -> None:
    model = random_model("llama", vocab_size=4096, tie_word_embeddings=False)
    prompts = random_prompts(*LENGTHS, most=4096)
    save(model, tmp_path)
    answers = greedy_answers(model, prompts, TOKENS)
    with LLM(tmp_path) as llm:
        assert sum(group.kind == "head" for group in llm.opened.groups) > 1
        streamed = keep_only(llm.opened.facts, llm.plan_for(Workload(5, 40, TOKENS, scored=True)), frozenset())
        for plan in (None, streamed):
            if plan is not None:
                llm.adopt(plan)
            for output, prompt, answer in zip(asked(llm, prompts), prompts, answers, strict=True):
                assert list(output.outputs[0].token_ids) == answer
                assert_tables(output.prompt_logprobs, model, prompt, ranked=False)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return random_model("llama")


@pytest.fixture(scope="module")
def llm(model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    with LLM(save(model, tmp_path_factory.mktemp("llama"))) as opened:
        opened.adopt(opened.plan_for(Workload(4, 64, TOKENS, scored=True)))
        yield opened


class TestBesideOthers:
    def test_only_who_asks_gets_them_and_each_as_many_as_it_asks_for(self, llm: LLM, model: PreTrainedModel) -> None:
        prompts = random_prompts(9, 20, 33)
        params = [replace(ASKED, prompt_logprobs=None), ASKED, replace(ASKED, prompt_logprobs=0)]
        none, some, own = asked(llm, prompts, params)
        assert none.prompt_logprobs is None
        assert_tables(some.prompt_logprobs, model, prompts[1])
        assert own.prompt_logprobs is not None
        assert [list(table or ()) for table in own.prompt_logprobs] == [[], *([token] for token in prompts[2][1:])]
        answers = [list(output.outputs[0].token_ids) for output in (none, some, own)]
        assert answers == greedy_answers(model, prompts, TOKENS)

    def test_a_prompt_that_is_known_is_read_again_for_them_once_for_all_its_answers(
        self, llm: LLM, model: PreTrainedModel
    ) -> None:
        prompts = random_prompts(40)
        asked(llm, prompts, replace(ASKED, prompt_logprobs=None))
        before = llm.report.prefill_tokens
        (output,) = asked(llm, prompts, replace(ASKED, n=3, temperature=1.0, seed=5))
        assert llm.report.prefill_tokens - before == 40
        assert len(output.outputs) == 3
        assert_tables(output.prompt_logprobs, model, prompts[0])

    def test_they_are_there_with_the_first_token_of_a_stream(self, llm: LLM, model: PreTrainedModel) -> None:
        (prompt,) = random_prompts(12)
        for output in llm.stream({"prompt_token_ids": prompt}, ASKED):
            assert_tables(output.prompt_logprobs, model, prompt)

    def test_an_answer_that_goes_on_or_had_ended_has_them_too(self, llm: LLM, model: PreTrainedModel) -> None:
        (prompt,) = random_prompts(12)
        (answer,) = greedy_answers(model, [prompt], TOKENS)
        for begun in (2, TOKENS):
            request = Request("0", None, tuple(prompt), ASKED, (tuple(answer[:begun]),))
            (output,) = llm.answer([request], Workload(1, 12, TOKENS))
            assert list(output.outputs[0].token_ids) == answer
            assert_tables(output.prompt_logprobs, model, prompt)


@given(
    seed=st.integers(0, 50),
    cuts=st.lists(st.integers(1, 39), max_size=4, unique=True),
    top=st.sampled_from([1, 2, 5, 40]),
    order=st.randoms(use_true_random=False),
)
def test_blocks_of_any_cut_in_any_order_give_what_the_sampler_says_of_the_whole(
    seed: int, cuts: list[int], top: int, order: Any
) -> None:
    """Few different values, zeros of both signs among them: equal logits go by their ids."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-3, 4, (3, 40), generator=generator).to(torch.bfloat16) * 0.5
    logits[0, 7] = -0.0
    targets = torch.randint(0, 40, (3,), generator=generator).tolist()
    scores = TokenScores(targets, torch.device("cpu"), top)
    edges = sorted({0, 40, *cuts})
    parts = list(zip(edges, edges[1:], strict=False))
    order.shuffle(parts)
    for start, stop in parts:
        for row in (2, 0, 1):
            scores.add(LogitsBlock(row, start, logits[row : row + 1, start:stop]))
    params = SamplingParams(temperature=0.0, logprobs=top)
    for row, (target, table, score) in enumerate(zip(targets, scores.tables(), scores.scores(), strict=True)):
        only = logits[row]
        (drawn,) = sample(logits[row : row + 1], [SamplerRow(params, 0)])
        assert drawn.top_logprobs is not None
        assert {i: entry.rank for i, entry in table.items() if i in drawn.top_logprobs} == {
            i: entry.rank for i, entry in drawn.top_logprobs.items()
        }
        assert score.is_greedy == (drawn.token_id == target)
        wanted = only.double().log_softmax(-1)
        assert all(entry.logprob == pytest.approx(wanted[i].item(), abs=1e-5) for i, entry in table.items())
        before = int((only > only[target]).sum()) + int((only[:target] == only[target]).sum())
        assert table[target].rank in {1 + before, None}
        if len(parts) == 1:
            assert table[target].rank == 1 + before


def test_rows_of_logits_that_are_many_are_ranked_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.token_scores.KEYS_AT_ONCE", 100)
    logits = torch.randn(7, 40)
    scores = TokenScores([0] * 7, torch.device("cpu"), 2)
    scores.add(LogitsBlock(0, 0, logits))
    assert [list(table)[:2] for table in scores.tables()] == logits.topk(2).indices.tolist()
