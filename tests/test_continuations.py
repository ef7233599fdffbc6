"""How likely texts are behind a prompt: transformers' own numbers, whatever is shared, streamed or cut into pieces."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Tokenizers
from tokenizers import models
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from checkpoints import LONGROPE, greedy_answers, random_model, random_prompts, save
from placements import in_small_pages, placement
from windlass.engine.continuations import Continued, read_continuations
from windlass.engine.llm import LLM
from windlass.errors import RequestError, UsageError
from windlass.facts.continuation_score import ContinuationScore
from windlass.facts.plan import Plan
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.model.tokenizer import Tokenizer
from windlass.planner.residency import keep_only

PAGE = 8
ON_HOST = placement(0.0, 1.0, 1.0)
DEVICE, MEMORY = "sim:rate=2GB/s,latency=20us,delay=400us,seed=4", "200MiB"

Ids = list[int]
Asked = list[tuple[Ids, list[Ids]]]
Numbers = list[tuple[list[float], bool]]


@pytest.fixture(autouse=True, scope="module")
def no_proof() -> Iterator[None]:
    """Proving an architecture takes seconds and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        yield


def questions(model: PreTrainedModel) -> Asked:
    """Four questions behind the same 40 tokens of examples, with four choices each, and a stranger.

    The last choice is what the model itself would say; one is a single token.
    """
    shots, *prompts, stranger = random_prompts(40, 5, 9, 16, 9, 21)
    prompts[3][:3] = prompts[1][:3]
    asked = [shots + prompt for prompt in prompts] + [stranger]
    said = greedy_answers(model, asked, 3)
    return [(prompt, [*random_prompts(3, 1, 9), own]) for prompt, own in zip(asked, said, strict=True)]


def expected(model: PreTrainedModel, asked: Asked) -> list[Numbers]:
    """From a forward of transformers over each prompt with each continuation."""

    def numbers(prompt: Ids, continuation: Ids) -> tuple[list[float], bool]:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + continuation]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        table, ids = logits.float().log_softmax(-1), torch.tensor(continuation)
        return table.gather(1, ids[:, None])[:, 0].tolist(), bool((table.argmax(-1) == ids).all())

    return [[numbers(prompt, continuation) for continuation in group] for prompt, group in asked]


def scored(llm: LLM, asked: Asked) -> list[list[ContinuationScore]]:
    prompts = [{"prompt_token_ids": prompt} for prompt, _ in asked]
    return llm.score(prompts, [[{"prompt_token_ids": ids} for ids in group] for _, group in asked])


def assert_same(found: list[list[ContinuationScore]], wanted: list[Numbers], tolerance: float = 1e-4) -> None:
    assert [len(group) for group in found] == [len(group) for group in wanted]
    for score, (logprobs, is_greedy) in zip(chain(*found), chain(*wanted), strict=True):
        assert list(score.token_logprobs) == pytest.approx(logprobs, abs=tolerance)
        assert score.cumulative_logprob == pytest.approx(math.fsum(logprobs), abs=tolerance * len(logprobs))
        assert score.is_greedy == is_greedy


def work(asked: Asked) -> Workload:
    return Workload(sum(len(group) for _, group in asked), 80, 1, scored=True)


def small_pages(llm: LLM, asked: Asked, pass_tokens: int, block: int) -> Plan:
    plan = in_small_pages(llm, llm.plan_for(work(asked)), ON_HOST, pass_tokens)
    return replace(plan, num_pages=400, host_pages=0, block_size=block)


def fewest_tokens(asked: Asked) -> int:
    """Tokens that are read where each full page before a continuation is read for one text and found by the others."""
    known, read = set[tuple[int, ...]](), 0
    for tokens, first in sorted((prompt + added, len(prompt)) for prompt, group in asked for added in group):
        full = (len(tokens) - 1) // PAGE
        pages = [tuple(tokens[: (page + 1) * PAGE]) for page in range(full)]
        shared = 0
        while shared < (first - 1) // PAGE and pages[shared] in known:
            shared += 1
        known.update(pages)
        read += len(tokens) - 1 - shared * PAGE
    return read


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "phi3", "qwen3_moe", "deepseek_v3"])
def test_transformers_scores_resident_and_streamed_in_pieces(architecture: str, tmp_path: Path) -> None:
    model = random_model(architecture)
    save(model, tmp_path)
    asked = questions(model)
    wanted = expected(model, asked)
    assert {is_greedy for _, is_greedy in chain(*wanted)} == {True, False}
    with LLM(tmp_path) as llm:
        assert_same(scored(llm, asked), wanted)
        pieces = keep_only(llm.opened.facts, llm.plan_for(work(asked)), frozenset())
        llm.adopt(replace(pieces, pass_tokens=13, micro_batch_tokens=5))
        assert_same(scored(llm, asked), wanted)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Asked, list[Numbers]]:
    """A tiny llama, what it is asked, and what transformers finds."""
    model = random_model("llama")
    asked = questions(model)
    return save(model, tmp_path_factory.mktemp("llama")), asked, expected(model, asked)


class TestWhatTextsBeginWithAlike:
    @pytest.mark.parametrize("block", [3, 40])
    @pytest.mark.parametrize("pass_tokens", [11, 400])
    def test_it_is_read_once_and_no_score_changes(
        self, llama: tuple[Path, Asked, list[Numbers]], pass_tokens: int, block: int
    ) -> None:
        folder, asked, wanted = llama
        with LLM(folder, enable_prefix_caching=False) as llm:
            llm.adopt(small_pages(llm, asked, pass_tokens, block))
            alone = scored(llm, asked)
            assert_same(alone, wanted)
            every = sum(len(prompt + added) - 1 for prompt, group in asked for added in group)
            assert llm.report.prefill_tokens == every
        with LLM(folder) as llm:
            llm.adopt(small_pages(llm, asked, pass_tokens, block))
            shared = scored(llm, asked)
            assert_same(shared, [[(list(s.token_logprobs), s.is_greedy) for s in group] for group in alone], 1e-5)
            assert llm.report.prefill_tokens == fewest_tokens(asked) < every / 2
            before = llm.report.prefill_tokens
            assert_same(scored(llm, asked[::-1]), wanted[::-1])
            assert llm.report.prefill_tokens - before < before, "a second call finds what the first has read"
            table = llm._engine.cache.table
            table.check()
            assert table.room == table.num_pages

    def test_whoever_follows_stands_in_the_same_pass_as_its_leader(
        self, llama: tuple[Path, Asked, list[Numbers]]
    ) -> None:
        folder, asked, wanted = llama
        with LLM(folder) as llm:
            llm.adopt(replace(small_pages(llm, asked, 4000, 40), micro_batch_tokens=9))
            assert_same(scored(llm, asked), wanted)
            assert llm.report.prefill_passes == 1

    def test_a_cache_too_small_for_all_makes_some_wait(self, llama: tuple[Path, Asked, list[Numbers]]) -> None:
        folder, asked, wanted = llama
        with LLM(folder) as llm:
            llm.adopt(replace(small_pages(llm, asked, 60, 40), num_pages=12))
            assert_same(scored(llm, asked), wanted)
            llm._engine.cache.table.check()

    @pytest.mark.parametrize(
        "wanted_places", [placement(0.5, 0.5, 0.5), placement(0.3, 0.4, 0.3, 0.4), placement(0.0, 1.0, 0.0, 1.0)]
    )
    def test_wherever_the_pages_lie(
        self, llama: tuple[Path, Asked, list[Numbers]], tmp_path: Path, wanted_places: object
    ) -> None:
        folder, asked, wanted = llama
        with LLM(folder, device=DEVICE, gpu_memory=MEMORY, offload_dir=tmp_path) as llm:
            plan = in_small_pages(llm, llm.plan_for(work(asked)), wanted_places, pass_tokens=70)
            llm.adopt(replace(plan, block_size=6, micro_batch_tokens=7))
            assert_same(scored(llm, asked), wanted)
            assert_same(scored(llm, asked), wanted)

    @pytest.mark.parametrize("kind", ["int8", "int4"])
    def test_packed_pages_give_the_same_scores_shared_or_not(
        self, llama: tuple[Path, Asked, list[Numbers]], kind: str
    ) -> None:
        folder, asked, _ = llama
        found = []
        for share in (False, True):
            with LLM(folder, kv_cache_dtype=kind, enable_prefix_caching=share) as llm:
                found.append(scored(llm, asked))
                assert llm._engine.cache.table.places == {}
        for one, other in zip(chain(*found[0]), chain(*found[1]), strict=True):
            assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-5)

    def test_nothing_is_shared_where_keys_depend_on_the_length_of_the_whole(self, tmp_path: Path) -> None:
        """Below 16 tokens this model's rotary tables are others, and what it stores too."""
        model = random_model("llama", rope_parameters=LONGROPE, original_max_position_embeddings=16)
        save(model, tmp_path)
        (prompt,) = random_prompts(13)
        asked = [(prompt, random_prompts(1, 30))]
        with LLM(tmp_path) as llm:
            llm.adopt(small_pages(llm, asked, 400, 2))
            assert_same(scored(llm, asked), expected(model, asked))
            prompts = [prompt, prompt + random_prompts(30)[0]]
            params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
            for each in prompts:
                (output,) = llm.generate({"prompt_token_ids": each}, params)
                assert list(output.outputs[0].token_ids) == greedy_answers(model, [each], 2)[0]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    """Two letters and a space, of which `ab` and ` b` are tokens of their own."""
    vocabulary = {"a": 0, "b": 1, " ": 2, "ab": 3, " b": 4, "<s>": 5}
    model = models.BPE(vocab=vocabulary, merges=[("a", "b"), (" ", "b")])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizers(model), bos_token="<s>"))


class TestHowTextIsCut:
    @pytest.mark.parametrize(
        ("prompt", "continuation", "ids", "first"),
        [
            ("a", " b", (0, 4), 1),
            ("a ", "b", (0, 4), 1),
            ("a  ", "b", (0, 2, 4), 1),
            ("a", "ba", (3, 0), 1),
            ("", "ba", (5, 1, 0), 1),
            ("", "<s>a", (5, 0), 1),
            ({"prompt_token_ids": [0, 2]}, "b", (0, 2, 1), 2),
            ("a ", {"prompt_token_ids": [1]}, (0, 2, 1), 2),
        ],
    )
    def test_together_and_the_prompt_s_spaces_go_with_what_follows(
        self, words: Tokenizer, prompt: Any, continuation: Any, ids: tuple[int, ...], first: int
    ) -> None:
        assert read_continuations(prompt, continuation, words) == [[Continued(ids, first)]]

    def test_one_prompt_may_be_given_with_its_own_list(self, words: Tokenizer) -> None:
        wanted = [[Continued((0, 4), 1), Continued((0, 0), 1)]]
        assert read_continuations("a", [" b", "a"], words) == wanted
        assert read_continuations(["a"], [[" b", "a"]], words) == wanted
        assert read_continuations(["a", "b"], [" b", ["a"]], words) == [wanted[0][:1], [Continued((1, 0), 1)]]

    @pytest.mark.parametrize(
        ("prompts", "continuations", "error", "said"),
        [
            ("a", "b", RequestError, "'b' adds 0 tokens to its prompt of 1; give at least 1"),
            ("a", "", RequestError, "'' adds 0 tokens"),
            (["a", "a"], ["b"], UsageError, "2 prompts were given with 1 continuations"),
            (["a"], "b", UsageError, "a continuation must be a string"),
            ("a", 5, UsageError, "a continuation must be a string .* got int: 5"),
            ("a", [5], UsageError, "a prompt must be a string"),
            ({"prompt_token_ids": []}, {"prompt_token_ids": [1]}, RequestError, "the prompt has 0 tokens; give"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, words: Tokenizer, prompts: Any, continuations: Any, error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            read_continuations(prompts, continuations, words)


def test_first_and_continuations_do_not_go_together(tmp_path: Path) -> None:
    save(random_model("llama"), tmp_path)
    with LLM(tmp_path) as llm:
        assert llm.score([], []) == []
        with pytest.raises(UsageError, match="first=2 says where scores begin, and so do continuations"):
            llm.score([{"prompt_token_ids": [3]}], [{"prompt_token_ids": [4]}], first=2)
        with pytest.raises(RequestError, match="has 258 tokens, the model takes 256"):
            llm.score([{"prompt_token_ids": [3] * 257}], [{"prompt_token_ids": [4]}])
