"""The log probability of every token of a prompt is transformers' own, however the model is divided and read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from checkpoints import ARCHITECTURES, random_model, random_prompts, save
from placements import in_small_pages, placement
from planned_models import laptop
from windlass.engine import runner
from windlass.engine.foresight import Foresight
from windlass.engine.llm import LLM
from windlass.engine.logits_block import LogitsBlock
from windlass.engine.token_scores import TokenScores
from windlass.errors import ModelError, RequestError, UnsupportedModel, UsageError
from windlass.facts.placement import Placement
from windlass.facts.plan import Plan
from windlass.facts.prompt_scores import PromptScores
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.planner.cost import forecast, forecast_of
from windlass.planner.residency import keep_only

# On both sides of the windows (8) and of the rope threshold (16); the shortest has one token to score.
LENGTHS = (2, 17, 11, 40)
TOLERANCE = 1e-4
DEVICE, MEMORY = "sim:rate=2GB/s,latency=20us,delay=400us", "200MiB"

Llama = tuple[Path, list[list[int]], list[list[float]], Plan]


@pytest.fixture(autouse=True, scope="module")
def no_proof() -> Iterator[None]:
    """Proving an architecture takes seconds and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        yield


def expected(model: PreTrainedModel, prompts: list[list[int]]) -> list[list[float]]:
    """What transformers says of each token but the first, each prompt in a forward of its own."""
    scores = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            table = model(ids, use_cache=False).logits[0].float().log_softmax(-1)  # (T, V)
        scores.append(table[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist())
    return scores


def scored(llm: LLM, prompts: list[list[int]], first: int | list[int] = 1) -> list[PromptScores]:
    return llm.score([{"prompt_token_ids": prompt} for prompt in prompts], first=first)


def assert_same(found: list[PromptScores], wanted: list[list[float]]) -> None:
    for scores, logprobs in zip(found, wanted, strict=True):
        assert scores.prompt_logprobs[0] is None
        assert list(scores.prompt_logprobs[1:]) == pytest.approx(logprobs, abs=TOLERANCE)


def workload(prompts: list[list[int]]) -> Workload:
    return Workload(len(prompts), max(map(len, prompts)), 1, scored=True)


def streamed(llm: LLM, prompts: list[list[int]]) -> Plan:
    """Nothing resident but what must be: every layer, and the head, comes from disk."""
    return keep_only(llm.opened.facts, llm.plan_for(workload(prompts)), frozenset())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_resident_and_streamed_in_pieces(architecture: str, tmp_path: Path) -> None:
    model, prompts = random_model(architecture), random_prompts(*LENGTHS, most=96)
    save(model, tmp_path)
    wanted = expected(model, prompts)
    with LLM(tmp_path) as llm:
        assert_same(scored(llm, prompts), wanted)
        assert llm.report.prefill_passes == 1
        pieces = replace(streamed(llm, prompts), pass_tokens=13, micro_batch_tokens=5)
    with LLM(tmp_path, plan=pieces) as llm:
        assert_same(scored(llm, prompts), wanted)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    model, prompts = random_model("llama"), random_prompts(*LENGTHS)
    folder = save(model, tmp_path_factory.mktemp("llama"))
    with LLM(folder, device=DEVICE, gpu_memory=MEMORY, micro_batch_tokens=7) as llm:
        return folder, prompts, expected(model, prompts), llm.plan_for(workload(prompts))


SHARES = st.floats(0, 1)


@settings(max_examples=8)
@given(
    wanted=st.builds(placement, SHARES, SHARES, SHARES, SHARES),
    pass_tokens=st.integers(4, 90),
    micro_batch=st.integers(1, 40),
    row_on_host=st.booleans(),
)
def test_whatever_lies_on_device_host_and_disk(
    llama: Llama,
    wanted: Placement,
    pass_tokens: int,
    micro_batch: int,
    row_on_host: bool,
) -> None:
    folder, prompts, logprobs, plan = llama
    with LLM(folder, device=f"{DEVICE},seed=3", gpu_memory=MEMORY, offload_dir=folder) as llm:
        chosen = in_small_pages(llm, plan, wanted, pass_tokens)
        llm.adopt(replace(chosen, micro_batch_tokens=micro_batch, row_on_host=row_on_host))
        assert_same(scored(llm, prompts), logprobs)


class TestTheHead:
    """It sees a few rows at a time, and a part of the vocabulary, so that logits of a whole pass never exist."""

    @pytest.fixture
    def sizes(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
        """The shape of every block of logits; 4 rows of 4096 ids fit what is held at a time."""
        seen: list[tuple[int, ...]] = []
        add = TokenScores.add
        monkeypatch.setattr(runner, "LOGITS_BYTES", 4 * 4 * 4096)
        monkeypatch.setattr(
            TokenScores, "add", lambda scores, block: (seen.append(tuple(block.logits.shape)), add(scores, block))[1]
        )
        return seen

    @pytest.mark.parametrize("tied", [True, False])
    def test_it_streams_once_a_pass_for_all_rows(
        self, tied: bool, sizes: list[tuple[int, ...]], tmp_path: Path
    ) -> None:
        model = random_model("llama", vocab_size=4096, tie_word_embeddings=tied)
        prompts = random_prompts(*LENGTHS, most=4096)
        save(model, tmp_path)
        with LLM(tmp_path) as llm:
            heads = [group for group in llm.opened.groups if group.kind == "head"]
            plan = streamed(llm, prompts)
        with LLM(tmp_path, plan=plan) as llm:
            assert_same(scored(llm, prompts), expected(model, prompts))
            rows = sum(LENGTHS) - len(LENGTHS)
            assert (len(heads) > 1) != tied
            assert sum(r * ids for r, ids in sizes) == rows * 4096 and max(r * ids for r, ids in sizes) <= 4 * 4096
            assert llm.report.bytes_read < 1.1 * (plan.disk_bytes * 3 + 40_000 * len(prompts) * 40)

    def test_soft_capped_logits_can_come_by_parts(self, tmp_path: Path) -> None:
        model = random_model("gemma2", vocab_size=4096, tie_word_embeddings=False, final_logit_softcapping=2.0)
        prompts = random_prompts(*LENGTHS, most=4096)
        save(model, tmp_path)
        wanted = expected(model, prompts)
        with LLM(tmp_path) as llm:
            assert sum(group.kind == "head" for group in llm.opened.groups) > 1
            assert_same(scored(llm, prompts), wanted)
            plan = streamed(llm, prompts)
        with LLM(tmp_path, plan=plan) as llm:
            assert_same(scored(llm, prompts), wanted)

    def test_a_model_that_mixes_its_logits_is_refused_where_they_must_come_by_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = random_model("llama", vocab_size=4096, tie_word_embeddings=False)
        save(model, tmp_path)
        forward = type(model).forward

        def mixing(self: PreTrainedModel, *args: object, **kwargs: object) -> object:
            output = forward(self, *args, **kwargs)
            output.logits = output.logits - output.logits.mean(-1, keepdim=True)
            return output

        with LLM(tmp_path) as llm:
            wanted, plan = scored(llm, random_prompts(9)), streamed(llm, random_prompts(9))
        monkeypatch.setattr(type(model), "forward", mixing)
        with LLM(tmp_path) as llm:  # resident, it comes whole; a shift of all logits changes no probability
            assert list(scored(llm, random_prompts(9))[0].prompt_logprobs[1:]) == pytest.approx(
                wanted[0].prompt_logprobs[1:], abs=TOLERANCE
            )
        with LLM(tmp_path, plan=plan) as llm, pytest.raises(UnsupportedModel, match="raise --host-memory"):
            scored(llm, random_prompts(9))


class TestMemoryAndPasses:
    def test_a_plan_for_scoring_counts_the_rows_behind_the_layers(self, tmp_path: Path) -> None:
        """All rows are copied and normalised at once, and that is in the bill."""
        save(random_model("llama"), tmp_path)
        with LLM(tmp_path) as llm:
            asked = Workload(8, 200, 1)
            plain, scoring = llm.plan_for(asked), llm.plan_for(replace(asked, scored=True))
            assert llm.opened.rows_scored >= llm.opened.rows_held + 2
            assert scoring.memory.row / scoring.pass_tokens > 2 * plain.memory.row / plain.pass_tokens

    def test_passes_are_full_though_prompts_are_uneven(self, tmp_path: Path) -> None:
        """A prompt that has been read makes room for the next: 300 tokens in passes of 64 take five."""
        prompts = random_prompts(*(7, 3, 21, 64, 41, 100, 13, 59))
        model = random_model("llama")
        save(model, tmp_path)
        with LLM(tmp_path) as llm:
            plan = replace(llm.plan_for(workload(prompts)), pass_tokens=64)
        with LLM(tmp_path, plan=plan) as llm:
            assert_same(scored(llm, prompts), expected(model, prompts))
            assert llm.report.prefill_tokens == sum(map(len, prompts)) - len(prompts) == 300
            assert llm.report.prefill_passes == 5

    def test_few_pages_make_prompts_wait_and_all_come_back(self, tmp_path: Path) -> None:
        prompts = random_prompts(30, 30, 30, 30)
        model = random_model("llama")
        save(model, tmp_path)
        with LLM(tmp_path) as llm:
            plan = replace(llm.plan_for(workload(prompts)), page_tokens=8, num_pages=9)
        with LLM(tmp_path, plan=plan) as llm:
            assert_same(scored(llm, prompts), expected(model, prompts))
            assert llm.report.prefill_passes == 2
            assert llm._engine is not None and llm._engine.cache.table.room == 9

    def test_answers_after_scores_and_scores_after_answers(self, tmp_path: Path) -> None:
        model, prompts = random_model("llama"), random_prompts(*LENGTHS)
        save(model, tmp_path)
        greedy = SamplingParams(max_tokens=5, temperature=0.0, ignore_eos=True)
        with LLM(tmp_path) as llm:
            first = scored(llm, prompts)
            answers = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], greedy)
            assert scored(llm, prompts) == first
            assert llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], greedy)[3].outputs == (
                answers[3].outputs
            )

    def test_a_report_sets_the_forecast_of_every_row_through_the_head_beside_what_was_measured(
        self, tmp_path: Path
    ) -> None:
        save(random_model("llama"), tmp_path)
        asked = Workload(4, 40, 1)
        with LLM(tmp_path, dtype="float32") as llm:
            machine = replace(laptop(), host=replace(laptop().host, step_seconds=0.0))
            llm.foresee(Foresight(machine, forecast_of))
            scored(llm, random_prompts(41, 41, 41, 41))
            promise = llm.report.promise
            facts, plan = llm.opened.facts, llm.plan
        assert promise is not None and promise.forecast.prefill.tokens == 160
        few, all_rows = (forecast(facts, plan, machine, replace(asked, scored=each)) for each in (False, True))
        assert promise.forecast.prefill.seconds == pytest.approx(all_rows.prefill.seconds)
        assert all_rows.prefill.seconds > few.prefill.seconds


@pytest.fixture(scope="module")
def llm(llama: Llama) -> Iterator[LLM]:
    with LLM(llama[0], max_model_len=64) as opened:
        yield opened


class TestWhatIsScored:
    def test_only_what_lies_behind_the_first_place(self, llm: LLM) -> None:
        prompts = random_prompts(20, 30)
        whole, part = scored(llm, prompts), scored(llm, prompts, [12, 1])
        assert part[0].prompt_logprobs == (None,) * 12 + whole[0].prompt_logprobs[12:]
        assert (part[0].scored, part[1].scored) == (8, 29)
        assert part[0].nats == pytest.approx(-sum(logprob or 0.0 for logprob in whole[0].prompt_logprobs[12:]))

    def test_no_prompts_have_no_scores(self, llm: LLM) -> None:
        assert llm.score([]) == []

    @pytest.mark.parametrize(
        ("prompt", "first", "error", "words"),
        [
            ([5], 1, RequestError, "has 1 token.*needs 2 at least"),
            ([5, 6], 2, RequestError, "has 2 token.*needs 3 at least"),
            ([5] * 65, 1, RequestError, "has 65 tokens, the model takes 64"),
            ([5, 128], 1, RequestError, "token id 128 is not below"),
            ([5, 6], 0, UsageError, "first must be 1 or more, got 0"),
            ([5, 6], "2", UsageError, "first"),
            ([5, 6], [1, 2], UsageError, "1 prompts were given with 2 first"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, llm: LLM, prompt: list[int], first: int, error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=words):
            scored(llm, [prompt], first)


def test_blocks_in_any_order_give_the_log_softmax() -> None:
    logits, targets = torch.randn(6, 40) * 5, [0, 39, 17, 20, 5, 8]
    scores = TokenScores(targets, torch.device("cpu"))
    for first_id, stop in ((20, 40), (0, 13), (13, 20)):
        for start in (3, 0):
            scores.add(LogitsBlock(start, first_id, logits[start : start + 3, first_id:stop]))
    wanted = logits.double().log_softmax(-1)[range(6), targets]
    assert scores.log_probabilities() == pytest.approx(wanted.tolist(), abs=1e-5)


def test_logits_that_are_no_numbers_are_said_with_what_to_try() -> None:
    scores = TokenScores([1, 1], torch.device("cpu"))
    scores.add(LogitsBlock(0, 0, torch.tensor([[0.0, 1.0], [0.0, float("nan")]])))
    with pytest.raises(ModelError, match="row 1 sum to nan.*float32"):
        scores.log_probabilities()
