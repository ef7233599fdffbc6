"""What a service does when something breaks, when many come and go at once, and what it shows of itself meanwhile."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import greedy_answers, random_model, random_prompts, save
from placements import any_plan, in_small_pages, placement
from planned_models import laptop
from service_world import PATIENCE, Gate, Hearer, asked, served
from windlass.engine.arrivals import Arrivals
from windlass.engine.foresight import Foresight
from windlass.engine.llm import LLM
from windlass.errors import NotReady, QueueFull, StorageError, WindlassError
from windlass.facts.completion import RequestOutput
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.service.limits import Limits
from windlass.jobs.service.question import Question
from windlass.jobs.service.service import Service
from windlass.jobs.service.waits import Percentiles, percentiles
from windlass.planner.cost import forecast_of

TOKENS = 6
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
DRAWN = replace(GREEDY, temperature=1.0, n=2, presence_penalty=0.4)
LIMITS = Limits(max_num_seqs=4, max_queue=8, max_model_len=128)
PROMPTS = random_prompts(7, 30, 1, 12, 60, 5)

Serve = Callable[[Arrivals, Workload], Iterator[RequestOutput]]


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """A tiny llama in float32, and what transformers answers."""
    folder, model = tmp_path_factory.mktemp("llama"), random_model("llama")
    save(model, folder)
    return folder, greedy_answers(model, PROMPTS, TOKENS)


class Breaking(LLM):
    """Breaks off with `error` behind the first token that it gives; a second time it goes well, if it loads."""

    def __init__(self, folder: Path, error: Exception, loads_again: bool = True) -> None:
        super().__init__(folder)
        self.error: Exception | None = error
        self.loads_again, self.loads = loads_again, 0

    def prepare(self, workload: Workload) -> object:
        self.loads += 1
        if self.loads > 1 and not self.loads_again:
            raise StorageError("the disk is gone; put it back")
        return super().prepare(workload)

    def serve(self, arrivals: Arrivals, workload: Workload) -> Iterator[RequestOutput]:
        outputs = super().serve(arrivals, workload)
        for output in outputs:
            yield output
            if self.error is not None:
                error, self.error = self.error, None
                outputs.close()
                raise error


class TestErrors:
    def test_after_an_error_of_the_machine_it_loads_anew_and_goes_on(self, llama: tuple[Path, list[list[int]]]) -> None:
        folder, expected = llama
        gate, llm = Gate(), Breaking(folder, StorageError("the disk hiccuped; look at it"))
        with served(llm, replace(LIMITS, max_num_seqs=1)) as service:
            service.ask(Question(tuple(PROMPTS[0]), GREEDY), gate)
            assert gate.reached.wait(PATIENCE)
            waiting = [asked(service, prompt, GREEDY)[1] for prompt in PROMPTS[1:3]]
            gate.open.set()
            assert [hearer.answers() for hearer in waiting] == [[answer] for answer in expected[1:3]]
            assert str(gate.heard.error) == "the disk hiccuped; look at it"
            assert (service.state, llm.loads, service.open_tickets) == ("ready", 2, 0)
            assert service.view().requests == {"finished": 2, "cancelled": 0, "failed": 1, "set_aside": 0}

    def test_where_it_cannot_be_loaded_again_everybody_is_told(self, llama: tuple[Path, list[list[int]]]) -> None:
        gate, llm = Gate(), Breaking(llama[0], StorageError("the disk hiccuped"), loads_again=False)
        with served(llm, replace(LIMITS, max_num_seqs=1)) as service:
            service.ask(Question((1, 2), GREEDY), gate)
            assert gate.reached.wait(PATIENCE)
            _, waiting = asked(service, PROMPTS[1], GREEDY)
            gate.open.set()
            assert waiting.ended.wait(PATIENCE)
            assert (str(gate.heard.error), str(waiting.error)) == ("the disk hiccuped", "the disk is gone; put it back")
            assert service.state == "failed" and str(service.failure) == "the disk is gone; put it back"
            with pytest.raises(NotReady, match="has failed: the disk is gone"):
                asked(service, [1], GREEDY)

    def test_a_bug_fails_what_ran_and_the_rest_goes_on(
        self, llama: tuple[Path, list[list[int]]], caplog: pytest.LogCaptureFixture
    ) -> None:
        folder, expected = llama
        gate, llm = Gate(), Breaking(folder, ZeroDivisionError("division by zero"))
        with served(llm, replace(LIMITS, max_num_seqs=1)) as service:
            service.ask(Question((1, 2), GREEDY), gate)
            assert gate.reached.wait(PATIENCE)
            _, waiting = asked(service, PROMPTS[1], GREEDY)
            gate.open.set()
            assert waiting.answers() == [expected[1]]
            told = str(gate.heard.error)
            assert "a bug of Windlass" in told and "ZeroDivisionError: division by zero" in told
            assert (service.state, llm.loads) == ("ready", 2)
        assert [record.exc_info is not None for record in caplog.records if record.levelname == "CRITICAL"] == [True]

    def test_a_bug_while_nobody_asks_ends_it(self, llama: tuple[Path, list[list[int]]]) -> None:
        class Idle(LLM):
            def serve(self, arrivals: Arrivals, workload: Workload) -> Iterator[RequestOutput]:
                raise ZeroDivisionError("division by zero")

        service = Service(Idle(llama[0]), LIMITS)
        service.run()
        assert service.state == "failed" and "failed" in service.view().binds
        with pytest.raises(NotReady, match="a bug of Windlass"):
            asked(service, [1], GREEDY)

    def test_it_answers_in_the_thread_that_runs_it(self, llama: tuple[Path, list[list[int]]]) -> None:
        answers: list[list[list[int]]] = []
        service = Service(LLM(llama[0]), LIMITS)

        def ask() -> None:
            assert service.wait() == "ready"
            answers.append(asked(service, PROMPTS[0], GREEDY)[1].answers())
            service.close()

        asking = threading.Thread(target=ask)
        asking.start()
        service.run()
        asking.join()
        assert (answers, service.state) == ([[llama[1][0]]], "closed")

    def test_closed_before_it_runs_it_never_loads(self, llama: tuple[Path, list[list[int]]]) -> None:
        llm = Breaking(llama[0], StorageError(""))
        service = Service(llm, LIMITS)
        service.close()
        service.run()
        assert (service.state, llm.loads) == ("closed", 0)

    def test_a_model_that_cannot_be_loaded_fails_the_service(self, llama: tuple[Path, list[list[int]]]) -> None:
        llm = Breaking(llama[0], StorageError(""), loads_again=False)
        llm.loads = 1
        service = Service(llm, LIMITS)
        service.start()
        assert service.wait() == "failed" and "the disk is gone" in str(service.failure)
        service.close()
        assert service.state == "failed"

    def test_a_listener_that_breaks_takes_nobody_along(self, llama: tuple[Path, list[list[int]]]) -> None:
        class Broken(Hearer):
            def output(self, output: RequestOutput) -> None:
                raise RuntimeError("Event loop is closed")

        with served(LLM(llama[0]), LIMITS) as service:
            ticket = service.ask(Question(tuple(PROMPTS[0]), GREEDY), Broken())
            assert asked(service, PROMPTS[1], GREEDY)[1].answers() == [llama[1][1]]
            assert ticket.ending == "cancelled"


def test_a_storm_leaves_nothing_behind(llama: tuple[Path, list[list[int]]]) -> None:
    """200 questions of 20 threads, people and batch rows, greedy and drawn; a tenth is given up at some moment."""
    folder, _ = llama
    limits = Limits(max_num_seqs=8, max_queue=400, max_model_len=128, typical_len=64)
    kinds = [(prompt, params) for prompt in PROMPTS for params in (GREEDY, replace(DRAWN, seed=3))]
    with LLM(folder) as llm:
        outputs = llm.generate([{"prompt_token_ids": prompt} for prompt, _ in kinds], [params for _, params in kinds])
        expected = [[list(answer.token_ids) for answer in output.outputs] for output in outputs]
    given_up = random.Random(7).sample(range(200), 20)
    heard: dict[int, Hearer] = {}
    with served(LLM(folder, interactive_reserve=128), limits) as service:

        def ask_ten(thread: int) -> None:
            for number in range(thread * 10, thread * 10 + 10):
                prompt, params = kinds[number % len(kinds)]
                ticket, heard[number] = asked(service, prompt, params, priority=number % 3 % 2)
                if number in given_up:
                    if number % 2:
                        heard[number].begun.wait(PATIENCE)
                    service.cancel(ticket)

        threads = [threading.Thread(target=ask_ten, args=(thread,)) for thread in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in set(range(200)) - set(given_up):
            assert heard[number].answers() == expected[number % len(kinds)], number
        asked(service, [1], replace(GREEDY, max_tokens=1))[1].answers()  # a pass behind the last that was given up
        view, table = service.view(), service.llm._engine.cache.table
        assert service.open_tickets == 0 and view.queue.waiting == 0
        table.check()
        assert not table.pages and table.room == table.num_pages
        assert (
            service._desk._heap == [] and sum(view.requests[end] for end in ("finished", "cancelled", "failed")) == 201
        )
        assert view.requests["failed"] == 0 and view.requests["finished"] >= 181


class TestView:
    def test_it_shows_where_the_bytes_are_and_who_waits(self, llama: tuple[Path, list[list[int]]]) -> None:
        gate, llm = Gate(), LLM(llama[0], interactive_reserve=64)
        llm.foresee(Foresight(laptop(disk=2.5e9), forecast_of))
        service = Service(llm, replace(LIMITS, max_num_seqs=2), version="1.2.3")
        assert service.view().binds == "nothing: the model is loading"
        service.start()
        assert service.wait() == "ready"
        try:
            for prompt in PROMPTS[:2]:
                asked(service, prompt, GREEDY)[1].answers()
            service.ask(Question(tuple(PROMPTS[4]), replace(GREEDY, max_tokens=40)), gate)
            assert gate.reached.wait(PATIENCE)
            _, row = asked(service, PROMPTS[0], GREEDY, priority=1)
            view = service.view()  # in the middle of a pass, which stands still
            document = json.loads(json.dumps(view.as_dict()))
            plan = service._plan
            assert plan is not None
            assert (document["state"], document["version"]) == ("ready", "1.2.3")
            (tier,) = document["tiers"]
            kinds = [part["kind"] for part in tier["parts"]]
            assert (tier["name"], kinds) == ("host", ["process", "weights", "kv_cache", "buffers", "free"])
            assert tier["budget"] == sum(part["bytes"] for part in tier["parts"]) == plan.host_bill.budget
            page = plan.host_bill.cache // plan.num_pages
            used = -(-(60 + 39) // plan.page_tokens)
            assert tier["parts"][2]["used"] == used * page
            assert document["queue"] == {
                "running": 1, "places": 2, "waiting": 1, "capacity": 8, "pages_used": used, "pages": plan.num_pages,
                "reserved_pages": 1, "kept_pages": view.queue.kept_pages,
            }  # fmt: skip
            assert document["links"] == [{"name": "disk to host", "lane": "disk", "rate": 0.0, "limit": 2.5e9}]
            assert document["binds"].startswith("compute (busy")
            assert document["speed"]["prompt_tokens"] == 7 + 30 + 60
            assert document["speed"]["generated_tokens"] == 2 * TOKENS + 1
            assert document["speed"]["tokens_per_second"] > 0 < document["speed"]["forecast"]
            assert document["wait"]["first_token"]["p50"] <= document["wait"]["first_token"]["p99"]
            assert document["pass"]["number"] == 2 * TOKENS + 1
            (lane,) = document["pass"]["lanes"]
            ends = [end for _, end, _ in lane["spans"]]
            assert lane["name"] == "compute" and max(ends) <= document["pass"]["seconds"] and ends == sorted(ends)
            assert any("layer 2" in what for _, _, what in lane["spans"])
            gate.open.set()
            row.answers()
            gate.heard.answers()
        finally:
            gate.open.set()
            service.close()
        assert service.view().binds == "nothing: the service is closed"

    def test_what_streams_shows_on_its_link(self, llama: tuple[Path, list[list[int]]]) -> None:
        llm = LLM(llama[0], device="sim:rate=2GB/s,latency=20us,delay=400us,seed=4", gpu_memory="200MiB")
        llm.adopt(in_small_pages(llm, any_plan(llm, PROMPTS, TOKENS), placement(0.3, 0.4, 1.0), pass_tokens=64))
        with served(llm, LIMITS) as service:
            assert asked(service, PROMPTS[0], GREEDY)[1].answers() == [llama[1][0]]
            view, plan = service.view(), service._plan
        assert plan is not None
        assert [(tier.name, tier.budget) for tier in view.tiers] == [
            ("host", plan.host_bill.budget), ("device", plan.memory.budget), ("disk", plan.disk_bytes),
        ]  # fmt: skip
        rates = {link.lane: link.rate for link in view.links}
        assert 0 < rates["disk"] < rates["upload"] and 0 < rates["download"]
        assert view.queue.pages == 48 and view.last_pass is not None
        assert {"disk", "upload", "compute"} <= {lane.name for lane in view.last_pass.lanes}

    def test_percentiles_are_waits_that_somebody_had(self) -> None:
        assert percentiles([]) == Percentiles(None, None)
        assert percentiles([3.0]) == Percentiles(3.0, 3.0)
        assert percentiles(float(number) for number in range(200, 0, -1)) == Percentiles(100.0, 198.0)


def test_questions_that_come_faster_than_they_end_are_told_by_the_speed_of_the_last(
    llama: tuple[Path, list[list[int]]],
) -> None:
    gate = Gate()
    with served(LLM(llama[0]), Limits(max_num_seqs=1, max_queue=1, max_model_len=128)) as service:
        service._desk.waits.stays.extend([50.0, 70.0])
        service.ask(Question((1, 2), GREEDY), gate)
        assert gate.reached.wait(PATIENCE)
        asked(service, PROMPTS[0], GREEDY)
        with pytest.raises(QueueFull, match="ask again in 60 s") as full:
            asked(service, PROMPTS[0], GREEDY)
        assert full.value.retry_after == 60.0
        assert isinstance(full.value, WindlassError)
        gate.open.set()
