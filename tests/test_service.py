"""A service answers whoever asks while it runs: the tokens are those of a run alone, and nothing is left behind."""

from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import greedy_answers, random_model, random_prompts, save
from service_world import PATIENCE, Gate, asked, served
from windlass.engine.llm import LLM
from windlass.errors import NotReady, QueueFull, RequestError, UsageError
from windlass.facts.plan import Plan
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.service.limits import Limits
from windlass.jobs.service.question import Question
from windlass.jobs.service.service import Service

TOKENS = 6
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
LIMITS = Limits(max_num_seqs=4, max_queue=8, max_model_len=128)
PROMPTS = random_prompts(7, 30, 1, 12, 60, 5)


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """A tiny llama in float32, and what transformers answers."""
    folder, model = tmp_path_factory.mktemp("llama"), random_model("llama")
    save(model, folder)
    return folder, greedy_answers(model, PROMPTS, TOKENS)


def test_the_answers_are_those_of_transformers_told_token_by_token(llama: tuple[Path, list[list[int]]]) -> None:
    folder, expected = llama
    with served(LLM(folder), LIMITS) as service:
        hearers = [asked(service, prompt, GREEDY)[1] for prompt in PROMPTS]
        assert [hearer.answers() for hearer in hearers] == [[answer] for answer in expected]
        for hearer, answer in zip(hearers, expected, strict=True):
            told = [list(output.outputs[0].token_ids) for output in hearer.outputs]
            assert told == [answer[: count + 1] for count in range(TOKENS)]
        assert service.open_tickets == 0
    assert service.state == "closed"


def test_what_the_first_form_takes_is_there_before_the_plan_is_made(llama: tuple[Path, list[list[int]]]) -> None:
    told: list[str] = []

    class Telling(LLM):
        def check(self, sampling_params: SamplingParams) -> None:
            told.append("form" if sampling_params.structured_outputs else "other")
            super().check(sampling_params)

        def prepare(self, workload: Workload) -> Plan:
            told.append("plan")
            return super().prepare(workload)

    with served(Telling(llama[0]), LIMITS) as service:
        assert told == ["form", "plan"], "and a model without tokenizer is served all the same"
        assert service.state == "ready"


def test_a_question_that_comes_later_joins_those_that_run(llama: tuple[Path, list[list[int]]]) -> None:
    folder, expected = llama
    gate = Gate()
    with served(LLM(folder), LIMITS) as service:
        service.ask(Question(tuple(PROMPTS[0]), GREEDY), gate)
        assert gate.reached.wait(PATIENCE)
        _, later = asked(service, PROMPTS[1], replace(GREEDY, max_tokens=2))
        gate.open.set()
        assert later.answers() == [expected[1][:2]]
        assert gate.heard.answers() == [expected[0]]


def test_whoever_goes_away_hears_no_more_and_frees_the_place(llama: tuple[Path, list[list[int]]]) -> None:
    folder, expected = llama
    gate = Gate()
    with served(LLM(folder), replace(LIMITS, max_num_seqs=1)) as service:
        first = service.ask(Question(tuple(PROMPTS[0]), replace(GREEDY, max_tokens=100)), gate)
        assert gate.reached.wait(PATIENCE)
        _, waiting = asked(service, PROMPTS[1], GREEDY)
        never, unheard = asked(service, PROMPTS[2], GREEDY)
        assert service.cancel(first) and service.cancel(never) and not service.cancel(never)
        gate.open.set()
        assert waiting.answers() == [expected[1]]
        assert len(gate.heard.outputs) == 1 and not unheard.outputs and not unheard.ended.is_set()
        table = service.llm._engine.cache.table
        assert service.open_tickets == 0
    table.check()


def test_what_the_model_does_not_take_is_refused_at_once(llama: tuple[Path, list[list[int]]]) -> None:
    with served(LLM(llama[0]), LIMITS) as service:
        for prompt, message in (([], "0 tokens"), ([500], "token id 500"), ([1] * 128, "--max-model-len")):
            with pytest.raises(RequestError, match=message):
                asked(service, prompt, GREEDY)
        with pytest.raises(UsageError, match="tokenizer"):
            asked(service, [1], replace(GREEDY, stop="end"))
        assert service.open_tickets == 0


def test_a_full_queue_says_when_to_ask_again(llama: tuple[Path, list[list[int]]]) -> None:
    gate = Gate()
    with served(LLM(llama[0]), Limits(max_num_seqs=1, max_queue=2, max_model_len=128)) as service:
        service.ask(Question((1, 2), GREEDY), gate)
        assert gate.reached.wait(PATIENCE)
        rows = [asked(service, prompt, GREEDY, priority=1)[1] for prompt in PROMPTS[:2]]
        with pytest.raises(QueueFull, match=r"2 questions wait, 2 may") as full:
            asked(service, PROMPTS[2], GREEDY, priority=1)
        assert full.value.retry_after >= 1
        people = [asked(service, prompt, GREEDY)[1] for prompt in PROMPTS[:2]]  # what can wait is not in their way
        with pytest.raises(QueueFull):
            asked(service, PROMPTS[2], GREEDY)
        gate.open.set()
        assert all(hearer.answers() for hearer in rows + people)


def test_nobody_can_ask_before_it_is_loaded_or_after_it_is_closed(llama: tuple[Path, list[list[int]]]) -> None:
    service = Service(LLM(llama[0]), LIMITS)
    with pytest.raises(NotReady, match="being loaded"):
        asked(service, [1], GREEDY)
    service.close()
    service.close()
    with pytest.raises(NotReady, match="closed"):
        asked(service, [1], GREEDY)


def test_closing_ends_after_the_pass_in_flight_and_tells_who_is_open(llama: tuple[Path, list[list[int]]]) -> None:
    gate = Gate()
    with served(LLM(llama[0]), replace(LIMITS, max_num_seqs=1)) as service:
        service.ask(Question((1, 2), replace(GREEDY, max_tokens=100)), gate)
        assert gate.reached.wait(PATIENCE)
        _, waiting = asked(service, PROMPTS[0], GREEDY)
        service._desk.close()
        gate.open.set()
        service.close()
    assert isinstance(gate.heard.error, NotReady) and isinstance(waiting.error, NotReady)
    assert len(gate.heard.outputs) == 1 and service.open_tickets == 0
