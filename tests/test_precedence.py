"""Who goes first: an urgent request takes place and pages of what can wait, which goes on with the same tokens."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import greedy_answers, random_model, random_prompts, save
from placements import any_plan, in_small_pages, placement
from scripted_arrivals import ScriptedArrivals, alone, request, served
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.completion import RequestOutput
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

TOKENS = 8
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
DRAWN = replace(GREEDY, temperature=1.0, logprobs=2, presence_penalty=0.7, repetition_penalty=1.2, top_p=0.95)
PAGE = 8
PROMPTS = random_prompts(20, 33, 18, 27, 9, 40)
WORK = Workload(6, 40, TOKENS)
URGENT, BATCH = 0, 1


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """A tiny llama in float32, and what transformers answers."""
    folder, model = tmp_path_factory.mktemp("llama"), random_model("llama")
    save(model, folder)
    return folder, greedy_answers(model, PROMPTS, TOKENS)


@pytest.fixture
def llm(llama: tuple[Path, list[list[int]]]) -> Iterator[LLM]:
    with LLM(llama[0]) as llm:
        yield llm


def laid(llm: LLM, block: int, pages: int = 48, pass_tokens: int = 400, weights: float = 1.0) -> LLM:
    """The model with so many places and pages of 8 tokens, and such a share of its weights in memory."""
    plan = in_small_pages(llm, any_plan(llm, PROMPTS, TOKENS), placement(0.0, weights, 1.0), pass_tokens)
    llm.adopt(replace(plan, block_size=block, num_pages=pages))
    return llm


def tokens(outputs: dict[str, RequestOutput]) -> dict[int, list[int]]:
    return {int(key): list(output.outputs[0].token_ids) for key, output in outputs.items()}


def pages(prompt: list[int]) -> int:
    return -(-(len(prompt) + TOKENS - 1) // PAGE)


class TestReadingBeside:
    def test_what_can_wait_reads_a_micro_batch_a_pass_while_somebody_waits_for_words(
        self, llm: LLM, llama: tuple[Path, list[list[int]]]
    ) -> None:
        plan = replace(laid(llm, block=6).plan, micro_batch_tokens=16)
        llm.adopt(plan)
        rows = [request(number, PROMPTS[number], GREEDY, BATCH) for number in (1, 3, 5)]
        arrivals = ScriptedArrivals({0: [request(0, PROMPTS[0], GREEDY)], 1: rows})
        assert tokens(served(llm, arrivals, WORK)) == {number: llama[1][number] for number in (0, 1, 3, 5)}
        ends = {state.passes: state.prompt_tokens for state in arrivals.states}
        read = [after - before for before, after in zip(ends.values(), [*ends.values()][1:], strict=False)]
        # The first reads its prompt whole, and the rows 16 tokens in each of the passes in which it speaks.
        assert read[0] == len(PROMPTS[0]) and read[1:6] == [16] * 5
        assert sum(read) == sum(len(PROMPTS[number]) for number in (0, 1, 3, 5))

    def test_with_all_weights_at_hand_nobody_reads_more_in_a_pass_than_keeps_the_host_busy(
        self, llm: LLM, llama: tuple[Path, list[list[int]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("windlass.engine.precedence.BUSY_TOKENS", 32)
        for weights, most in ((1.0, 32), (0.5, sum(map(len, PROMPTS)))):
            arrivals = ScriptedArrivals({0: [request(number, PROMPTS[number], GREEDY) for number in range(6)]})
            assert tokens(served(laid(llm, 6, weights=weights), arrivals, WORK)) == dict(enumerate(llama[1]))
            ends = {state.passes: state.prompt_tokens for state in arrivals.states}
            read = [after - before for before, after in zip(ends.values(), [*ends.values()][1:], strict=False)]
            assert (read[0], max(read), sum(read)) == (most, most, sum(map(len, PROMPTS)))

    def test_with_nobody_urgent_there_it_reads_all_it_can(self, llm: LLM) -> None:
        llm.adopt(replace(laid(llm, block=6).plan, micro_batch_tokens=16))
        rows = [request(number, PROMPTS[number], GREEDY, BATCH) for number in (1, 3, 5)]
        arrivals = ScriptedArrivals({0: rows})
        served(llm, arrivals, WORK)
        first = next(state for state in arrivals.states if state.passes > arrivals.states[0].passes)
        read = first.prompt_tokens - arrivals.states[0].prompt_tokens
        assert read == sum(len(PROMPTS[number]) for number in (1, 3, 5))


class TestSettingAside:
    def test_an_urgent_one_takes_the_place_of_whoever_came_in_last(
        self, llm: LLM, llama: tuple[Path, list[list[int]]]
    ) -> None:
        rows = [request(number, PROMPTS[number], GREEDY, BATCH) for number in range(3)]
        arrivals = ScriptedArrivals({0: rows, 2: [request(3, PROMPTS[3], GREEDY, URGENT)]})
        got = served(laid(llm, block=2), arrivals, WORK)
        assert tokens(got) == dict(enumerate(llama[1][:4]))
        # It is read in the pass after it came; then 1 goes on, before 2, which came later.
        assert arrivals.entered == [(0, "0"), (0, "1"), (2, "3"), (8, "1"), (10, "2")]
        assert arrivals.states[-1].set_aside == 1

    def test_it_takes_pages_of_no_more_than_it_needs(self, llm: LLM, llama: tuple[Path, list[list[int]]]) -> None:
        rows = [request(number, PROMPTS[number], GREEDY, BATCH) for number in range(3)]
        urgent = request(3, PROMPTS[3], GREEDY, URGENT)
        room = sum(pages(PROMPTS[number]) for number in range(3))
        for spare, leaving in ((0, 2), (2, 1), (pages(PROMPTS[3]), 0)):
            arrivals = ScriptedArrivals({0: rows, 3: [urgent]})
            got = served(laid(llm, block=6, pages=room + spare), arrivals, WORK)
            assert tokens(got) == dict(enumerate(llama[1][:4]))
            assert (3, "3") in arrivals.entered and arrivals.states[-1].set_aside == leaving

    def test_nobody_leaves_where_it_would_not_help(self, llm: LLM, llama: tuple[Path, list[list[int]]]) -> None:
        """Two people hold all the pages but those of a small row: a third waits, and the row goes on."""
        script = {
            0: [request(0, PROMPTS[0], GREEDY), request(1, PROMPTS[1], GREEDY), request(4, PROMPTS[4], GREEDY, BATCH)],
            1: [request(5, PROMPTS[5], GREEDY)],
        }
        room = pages(PROMPTS[0]) + pages(PROMPTS[1]) + pages(PROMPTS[4])
        arrivals = ScriptedArrivals(script)
        got = served(laid(llm, block=6, pages=room), arrivals, WORK)
        assert tokens(got) == {number: llama[1][number] for number in (0, 1, 4, 5)}
        assert arrivals.states[-1].set_aside == 0 and arrivals.entered[-1] == (TOKENS, "5")

    def test_what_it_had_stored_is_found_again_while_there_is_room(self, llm: LLM) -> None:
        read = {}
        for room in (48, pages(PROMPTS[1]) + 1):
            rows = [request(1, PROMPTS[1], GREEDY, BATCH)]
            arrivals = ScriptedArrivals({0: rows, 4: [request(5, PROMPTS[5], GREEDY)]})
            served(laid(llm, block=1, pages=room), arrivals, WORK)
            assert arrivals.states[-1].set_aside == 1
            read[room] = arrivals.states[-1].prompt_tokens - len(PROMPTS[1]) - len(PROMPTS[5])
        roomy, tight = read.values()
        assert roomy < PAGE, "no more than what its last page held"
        assert tight >= len(PROMPTS[1]), "all of it was given up, and is read in a pass"

    @pytest.mark.parametrize("params", [replace(DRAWN, n=3), replace(DRAWN, prompt_logprobs=1), replace(DRAWN, seed=5)])
    @pytest.mark.parametrize("pass_tokens", [9, 400])
    def test_seeds_penalties_and_log_probabilities_live_on(
        self, llm: LLM, params: SamplingParams, pass_tokens: int
    ) -> None:
        """Set aside at every pass of their lives, in the middle of their prompts too, by people who come and go."""
        rows = [request(number, PROMPTS[number], params, BATCH) for number in range(3)]
        people = {at: [request(100 + at, PROMPTS[4], replace(GREEDY, max_tokens=1))] for at in range(1, 14, 2)}
        laid(llm, block=3, pages=24, pass_tokens=pass_tokens)
        expected = alone(llm, rows)
        arrivals = ScriptedArrivals({0: rows} | people)
        got = served(llm, arrivals, WORK)
        assert arrivals.states[-1].set_aside > 2
        for number, output in expected.items():
            for one, other in zip(got[number].outputs, output.outputs, strict=True):
                assert one.token_ids == other.token_ids
                assert [list(table) for table in one.logprobs] == [list(table) for table in other.logprobs]
                assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-4)
            assert (got[number].prompt_logprobs is None) == (params.prompt_logprobs is None)
            for table, wanted in zip(got[number].prompt_logprobs or (), output.prompt_logprobs or (), strict=True):
                assert (table is None) == (wanted is None)
                assert wanted is None or {key: entry.logprob for key, entry in table.items()} == pytest.approx(
                    {key: entry.logprob for key, entry in wanted.items()}, abs=1e-4
                )

    @pytest.mark.parametrize("architecture", ["gemma3_text", "phi3", "deepseek_v3", "gpt_oss"])
    def test_windows_latents_sinks_and_prompts_read_anew(self, architecture: str, tmp_path: Path) -> None:
        """phi3 reads a sequence anew when it outgrows 16 tokens: the last two are set aside on the way there."""
        model = random_model(architecture)
        save(model, tmp_path)
        asked = [*PROMPTS[:2], *random_prompts(12, 14)]
        rows = [request(number, prompt, GREEDY, BATCH) for number, prompt in enumerate(asked)]
        people = {at: [request(100 + at, PROMPTS[4], replace(GREEDY, max_tokens=2))] for at in (2, 5, 9)}
        with LLM(tmp_path) as llm:
            arrivals = ScriptedArrivals({0: rows} | people)
            got = served(laid(llm, block=2), arrivals, WORK)
        assert arrivals.states[-1].set_aside == 3
        expected = greedy_answers(model, asked, TOKENS)
        assert [tokens(got)[number] for number in range(len(asked))] == expected


class TestReserve:
    def test_what_can_wait_leaves_a_place_and_pages_to_whoever_cannot(
        self, llama: tuple[Path, list[list[int]]]
    ) -> None:
        rows = [request(number, PROMPTS[number], GREEDY, BATCH) for number in range(3)]
        with LLM(llama[0], interactive_reserve=len(PROMPTS[3]) + TOKENS) as llm:
            for block, room in ((2, 48), (6, pages(PROMPTS[0]) + pages(PROMPTS[1]) + pages(PROMPTS[3]))):
                arrivals = ScriptedArrivals({0: rows, 2: [request(3, PROMPTS[3], GREEDY)]})
                got = served(laid(llm, block=block, pages=room), arrivals, WORK)
                assert tokens(got) == dict(enumerate(llama[1][:4]))
                assert (2, "3") in arrivals.entered, "it comes in at once"
                assert arrivals.states[-1].set_aside == 0, "and nobody leaves for it"
                assert arrivals.states[-1].reserved_pages == -(-(len(PROMPTS[3]) + TOKENS) // PAGE)
                alone_in = [state.running for state in arrivals.states if state.passes < 2]
                assert max(alone_in) == (1 if block == 2 else 2)

    def test_alone_in_the_block_a_row_may_use_all_of_it(self, llama: tuple[Path, list[list[int]]]) -> None:
        with LLM(llama[0], interactive_reserve=10_000) as llm:
            rows = [request(number, PROMPTS[number], GREEDY, BATCH) for number in range(2)]
            got = served(laid(llm, block=1, pages=8), ScriptedArrivals({0: rows}), WORK)
        assert tokens(got) == dict(enumerate(llama[1][:2]))

    def test_it_is_a_number_of_tokens(self, llama: tuple[Path, list[list[int]]]) -> None:
        with pytest.raises(UsageError, match="--interactive-reserve must be 0 or more, got -1"):
            LLM(llama[0], interactive_reserve=-1)


class TestOrder:
    def test_by_priority_and_then_by_arrival(self, llm: LLM) -> None:
        priorities = (5, 1, 0, 1, 0, -1)
        asked = [request(n, PROMPTS[n], GREEDY, priority) for n, priority in enumerate(priorities)]
        arrivals = ScriptedArrivals({0: asked})
        served(laid(llm, block=1), arrivals, WORK)
        assert [number for _, number in arrivals.entered] == ["5", "2", "4", "1", "3", "0"]

    def test_an_urgent_prompt_is_read_before_what_can_wait(self, llm: LLM) -> None:
        """A pass takes 10 tokens: the row of 40 would take four of them, and the question of 9 has its own the next."""
        script = {0: [request(5, PROMPTS[5], GREEDY, BATCH)], 1: [request(4, PROMPTS[4], GREEDY)]}
        arrivals, first = ScriptedArrivals(script), {}
        for output in laid(llm, block=4, pass_tokens=10).serve(arrivals, WORK):
            first.setdefault(output.request_id, arrivals.states[-1].passes)
        assert first["4"] == 2 and first["5"] > 4

    def test_whoever_an_urgent_one_follows_is_as_urgent(self, llm: LLM) -> None:
        """A question begins as a row does that is being read: the row is not left behind the question after it."""
        shared = PROMPTS[5]
        script = {
            0: [request(0, shared, GREEDY, BATCH)],
            1: [request(1, [*shared, 7], GREEDY), request(2, PROMPTS[1], GREEDY)],
        }
        arrivals, first = ScriptedArrivals(script), {}
        for output in laid(llm, block=4, pass_tokens=10).serve(arrivals, WORK):
            first.setdefault(output.request_id, arrivals.states[-1].passes)
        assert first["0"] == 4 and first["1"] <= 6


class TestGivingUp:
    def test_a_place_is_free_at_the_next_pass(self, llm: LLM, llama: tuple[Path, list[list[int]]]) -> None:
        """Gone are: one that runs, one that waits, one that was set aside, and one of three answers."""
        rows = [request(number, PROMPTS[number], GREEDY, BATCH) for number in range(2)]
        script = {
            0: rows,
            2: [request(2, PROMPTS[2], GREEDY), request(3, PROMPTS[3], replace(DRAWN, n=3))],
            3: [request(4, PROMPTS[4], GREEDY), request(5, PROMPTS[5], GREEDY)],
        }
        arrivals = ScriptedArrivals(script, {3: ["0"], 4: ["3", "5"]})
        got = served(laid(llm, block=2), arrivals, WORK)
        finished = {number: answer for number, answer in tokens(got).items() if got[str(number)].finished}
        assert finished == {number: llama[1][number] for number in (1, 2, 4)}
        assert (4, "4") in arrivals.entered

    def test_a_leader_that_goes_leaves_what_it_has_read(self, llm: LLM, llama: tuple[Path, list[list[int]]]) -> None:
        again = [request(10 + number, PROMPTS[5], GREEDY) for number in range(3)]
        arrivals = ScriptedArrivals({0: again}, {1: ["10"]})
        got = served(laid(llm, block=3, pass_tokens=11), arrivals, WORK)
        assert tokens(got) == {11: llama[1][5], 12: llama[1][5]}

    def test_what_the_model_does_not_take_is_refused_and_the_others_go_on(
        self, llm: LLM, llama: tuple[Path, list[list[int]]]
    ) -> None:
        asked = [request(0, PROMPTS[0], GREEDY), request(1, [400], GREEDY), request(2, PROMPTS[2], GREEDY)]
        arrivals = ScriptedArrivals({0: asked})
        assert tokens(served(laid(llm, block=2), arrivals, WORK)) == {0: llama[1][0], 2: llama[1][2]}
        assert "token id 400" in str(arrivals.errors.pop("1")) and not arrivals.errors
