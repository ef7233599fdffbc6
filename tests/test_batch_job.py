"""A job that is killed at any instant and started again answers every row once, and says what stands in its way."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_llm import PLAN, FakeLLM, FakeTokenizer
from job_world import JobWorld, asks, text
from windlass.errors import JobError, StorageError, UsageError
from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.facts.job_identity import JobIdentity
from windlass.facts.job_settings import FINISHED, INPUT, ORDERS, JobSettings
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.answers import jsonl_answers
from windlass.jobs.answers.jsonl_answers import JsonlAnswers
from windlass.jobs.batch.ask import Ask
from windlass.jobs.batch.ending import CANCEL, CANCELLED, DONE, STOPPED
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.patience import Waits
from windlass.jobs.batch.place import JobPlace, OpenJob
from windlass.jobs.rows.jsonl_rows import JsonlRows
from windlass.model.tokenizer import AnyTokenizer
from windlass.planner.job_rows import rows_of

LENGTHS = (5, 1, 3, 1, 4, 2)
BEGUN = (1, 5, 3, 1, 4, 2)
"""Of these the first row is in the output after two passes, and two others are in the journal."""


@pytest.fixture
def world(tmp_path: Path) -> JobWorld:
    return JobWorld(tmp_path)


def killed_after(passes: int, world: JobWorld) -> None:
    """A process that ends in the middle of the pass after these."""
    with pytest.raises(KeyboardInterrupt):
        world.start(FakeLLM(ends_after=passes))


class TestWhatIsAsked:
    def test_answers_stand_in_the_order_of_the_input_or_as_they_end(self, world: JobWorld) -> None:
        assert world.ask(*asks(LENGTHS)).start() == DONE
        assert world.texts() == [text(length) for length in LENGTHS]
        world.settings = JobSettings(order=FINISHED)
        world.start()
        assert sorted(world.numbers()) == [1, 2, 3, 4, 5, 6]
        assert world.texts() == [text(length) for length in sorted(LENGTHS)]

    def test_where_long_answers_are_asked_first_a_person_hears_why_nothing_is_written(self, world: JobWorld) -> None:
        def told(*lengths: int) -> list[str]:
            world.told.clear()
            world.ask(*asks(lengths))
            world.start()
            return [line for line in world.told if "--order finished writes each as it ends" in line]

        assert len(told(1, 5, 3)) == 1
        assert told(1, 5, 3, 2) == [], "the last row is the only one to be asked"
        world.settings = JobSettings(order=FINISHED)
        assert told(1, 5, 3, 2, 1, 4) == []

    def test_a_job_that_is_done_keeps_its_tokens_and_speed_when_it_is_asked_again(self, world: JobWorld) -> None:
        world.ask(*asks(LENGTHS)).start()
        with world.journal() as journal:
            before = journal.fact("progress")
        world.start()
        with world.journal() as journal:
            assert journal.fact("progress") == before
        assert before["tokens"] == sum(LENGTHS)

    def test_a_job_that_is_done_asks_nothing_and_changes_nothing(self, world: JobWorld) -> None:
        world.ask(*asks(LENGTHS)).start()
        before, again = world.target.read_bytes(), FakeLLM()
        assert world.start(again) == DONE
        assert (world.target.read_bytes(), again.asked, again.workloads) == (before, [], [])

    def test_only_what_was_not_answered_is_asked_again(self, world: JobWorld) -> None:
        world.ask(*asks(LENGTHS))
        killed_after(2, world)
        again = FakeLLM()
        world.start(again)
        assert sorted(params.max_tokens for _, params in again.asked) == [3, 4, 5]

    def test_rows_that_cannot_be_answered_have_an_error_in_their_place(self, world: JobWorld) -> None:
        world.ask({"prompt": "Hi", "max_tokens": 1}, b"", b"{bad", {"prompt": "x" * 64}).start()
        assert world.numbers() == [1, 3, 4]
        assert "not JSON" in world.errors()[3] and "exceed the model's 64" in world.errors()[4]
        summary = world.summary()
        assert (summary.rows, summary.answered, summary.refused) == (3, 1, (3, 4))

    @pytest.mark.parametrize("window", [1, 2, 100])
    def test_a_name_belongs_to_the_first_row_that_has_it_also_after_a_kill(self, tmp_path: Path, window: int) -> None:
        world = JobWorld(tmp_path, window=window)
        rows = [{"custom_id": name, "prompt": "Hi", "max_tokens": n} for n, name in enumerate("abab", 1)]
        world.ask(*rows)
        killed_after(1, world)
        world.start()
        assert world.texts() == ["x", "xx", None, None]
        assert "custom_id 'a' is that of line 1 too" in world.errors()[3]

    def test_a_file_is_read_a_window_at_a_time_and_only_as_answers_are_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world, read, most, rows = JobWorld(tmp_path, window=3), [0], [0], JsonlRows.rows

        def counted(self: JsonlRows) -> Iterator[Any]:
            for row in rows(self):
                read[0] += 1
                yield row

        def finish(self: Journal, done: Any = (), *arguments: Any, **facts: Any) -> None:
            most[0] = max(most[0], read[0] - self.counts().finished)
            keep(self, done, *arguments, **facts)

        keep = Journal.finish
        monkeypatch.setattr(JsonlRows, "rows", counted)
        monkeypatch.setattr(Journal, "finish", finish)
        world.ask(*asks([1 + n % 5 for n in range(40)])).start(FakeLLM(block_size=2))
        assert world.texts() == [text(1 + n % 5) for n in range(40)]
        assert most[0] <= 2 + 2 * 3  # the block, and the window at hand and the next

    def test_a_longer_row_further_on_has_the_model_loaded_for_it(self, tmp_path: Path) -> None:
        world, llm = JobWorld(tmp_path, window=2), FakeLLM()
        world.ask(*asks((3, 2, 1, 2, 9, 1, 4)), {"prompt": "x" * 40, "max_tokens": 1}).start(llm)
        assert world.texts()[-2:] == ["xxxx", "x"]
        assert [(work.prompt_len, work.gen_len) for work in llm.workloads] == [(2, 3), (2, 9), (40, 9)]

    @pytest.mark.parametrize("asked", [True, False])
    def test_an_answer_that_cannot_be_as_long_as_asked_is_cut_and_that_is_said_once(
        self, world: JobWorld, asked: bool
    ) -> None:
        world.length_asked = asked
        world.ask({"prompt": "x" * 60}, {"prompt": "x" * 61}).start()
        assert world.texts() == ["xxxx", "xxx"]
        said = "warning: --max-tokens 16 is more than the prompt of row 1, 60 tokens, leaves of the 64 this model takes"
        assert [line.partition(";")[0] for line in world.said] == ([said] if asked else [])

    def test_a_plan_is_made_for_the_lengths_of_the_rows_one_by_one(self, world: JobWorld) -> None:
        """Further answers to a prompt have nothing to read, and what prompts share is read once."""
        llm, long = FakeLLM(max_model_len=128), "once upon a time in a land far away there lived a king "
        sampled = {"prompt": "Hi", "max_tokens": 9, "temperature": 1, "n": 3}
        world.ask({"prompt": "Hello", "max_tokens": 2}, sampled, {"prompt": long + "who", "max_tokens": 1}, {
            "prompt": long + "and", "max_tokens": 1,
        }).start(llm)  # fmt: skip
        (workload,) = llm.workloads
        assert workload == Workload(
            6, 58, 9, (2, 2, 2, 5, 58, 58), reserved_lens=(10, 10, 10, 6, 58, 58), gen_lens=(9, 9, 9, 2, 1, 1),
            shared_lens=(0, 2, 2, 0, 0, 48),
        )  # fmt: skip
        alone = replace(workload, shared_lens=())
        assert rows_of(PLAN, alone).read - rows_of(PLAN, workload).read == 2 * (2 - 1) + 48

    def test_the_rows_of_the_first_window_stand_for_those_of_the_whole_job(self, tmp_path: Path) -> None:
        world, llm = JobWorld(tmp_path, window=2), FakeLLM()
        world.ask(*asks((2, 4, 2, 4, 2, 4))).start(llm)
        (workload,) = llm.workloads
        assert (workload.num_prompts, workload.gen_lens) == (6, (4, 2))
        assert (workload.generated_tokens, rows_of(PLAN, workload).decoded) == (18, 12)

    def test_a_forecast_is_made_for_the_answers_that_are_left(self, tmp_path: Path) -> None:
        world, llm = JobWorld(tmp_path, window=2), FakeLLM()
        rows = [{"prompt": "Hi", "max_tokens": n, "temperature": 1, "n": 3} for n in (1, 9, 9, 9)]
        world.ask(*rows)
        killed_after(1, world)
        world.start(llm)
        assert [workload.num_prompts for workload in llm.workloads] == [12]
        assert [workload.num_prompts for workload in world.forecast] == [12, 9]

    def test_a_row_that_fits_the_model_at_its_full_length_fits_whatever_was_before(self, tmp_path: Path) -> None:
        world, llm = JobWorld(tmp_path, window=1), FakeLLM()
        world.ask({"prompt": "x" * 60, "max_tokens": 4}, {"prompt": "x", "max_tokens": 50}).start(llm)
        assert world.texts() == [text(4), text(50)]
        assert len(llm.workloads) == 1


class TestWhatIsKilled:
    @settings(max_examples=25)
    @given(
        lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9),
        kills=st.lists(st.integers(0, 5), max_size=4),
        window=st.integers(1, 4),
        order=st.sampled_from(ORDERS),
        torn=st.binary(max_size=9),
    )
    def test_answers_every_row_once(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        lengths: list[int],
        kills: list[int],
        window: int,
        order: str,
        torn: bytes,
    ) -> None:
        world = JobWorld(tmp_path_factory.mktemp("job"), JobSettings(order=order), window)
        world.ask(*asks(lengths))
        for passes in kills:
            try:
                world.start(FakeLLM(ends_after=passes))
            except KeyboardInterrupt:
                with open(world.target, "ab") as file:
                    file.write(torn)
        assert world.start() == DONE
        answers = dict(zip(world.numbers(), world.texts(), strict=True))
        assert answers == {number: text(length) for number, length in enumerate(lengths, 1)}
        if order == INPUT:
            assert world.numbers() == sorted(answers)

    @pytest.mark.parametrize(
        ("harm", "said"),
        [
            (lambda path: path.write_bytes(path.read_bytes()[:-40]), "bytes"),
            (lambda path: path.write_bytes(b""), "out.jsonl has 0 bytes"),
            (Path.unlink, "out.jsonl has 0 bytes"),
            (lambda path: path.write_bytes(path.read_bytes().replace(b"xxx", b"yyy")), "was changed"),
        ],
        ids=["shortened", "emptied", "removed", "edited"],
    )
    def test_makes_an_output_anew_that_somebody_harmed(
        self, world: JobWorld, harm: Callable[[Path], object], said: str
    ) -> None:
        world.ask(*asks(LENGTHS)).start()
        good = world.target.read_bytes()
        harm(world.target)
        world.start()
        assert world.target.read_bytes() == good
        (line,) = world.said
        assert said in line and "written again from the journal" in line

    @pytest.mark.parametrize("instead", [None, b"another's"])
    def test_makes_an_output_anew_that_is_taken_away_while_it_is_written(
        self, world: JobWorld, instead: bytes | None
    ) -> None:
        taken: list[int] = []

        def take() -> bool:
            if not taken and world.target.exists() and world.texts():
                taken.append(len(world.texts()))
                world.target.unlink()
                if instead is not None:
                    world.target.write_bytes(instead)
            return False

        assert world.ask(*asks(BEGUN)).start(stopped=take) == DONE
        assert taken == [1]
        assert world.texts() == [text(length) for length in BEGUN]

    def test_cuts_off_what_was_added_to_its_output(self, world: JobWorld) -> None:
        world.ask(*asks(LENGTHS)).start()
        good = world.target.read_bytes()
        world.target.write_bytes(good + b'{"id": "batch_req_0000')
        world.start()
        assert (world.target.read_bytes(), world.said) == (good, [])


class TestLongAnswers:
    """With --checkpoint-every a job goes on inside of them."""

    @pytest.fixture(autouse=True)
    def often(self, world: JobWorld) -> None:
        world.settings = JobSettings(checkpoint_every=2)

    def test_are_gone_on_with_from_the_last_tokens_that_were_kept(self, world: JobWorld) -> None:
        world.ask(*asks((9, 1, 6)))
        killed_after(5, world)
        again = FakeLLM(ends_after=2)  # of the first 4 and 4 are kept, so both are at 6 then, and one ends
        with pytest.raises(KeyboardInterrupt):
            world.start(again)
        assert again.begun == [((120,) * 4,), ((120,) * 4,)]
        third = FakeLLM()
        assert world.start(third) == DONE
        assert third.begun == [((120,) * 6,)]
        assert world.texts() == [text(length) for length in (9, 1, 6)]

    def test_of_several_answers_to_a_row_are_kept_together(self, world: JobWorld) -> None:
        world.ask({"prompt": "Hi", "max_tokens": 9, "n": 3, "temperature": 1})
        killed_after(3, world)
        again = FakeLLM()
        world.start(again)
        assert again.begun == [((120, 120),) * 3]

    def test_begin_again_where_log_probabilities_are_wanted(self, world: JobWorld) -> None:
        world.ask({"prompt": "Hi", "max_tokens": 9, "logprobs": 1})
        killed_after(5, world)
        again = FakeLLM()
        world.start(again)
        assert again.begun == [()]

    def test_are_counted_once(self, world: JobWorld) -> None:
        world.ask(*asks((9,)))
        killed_after(5, world)
        world.start()  # 4 of 9 tokens were kept
        with world.journal() as journal:
            assert journal.fact("progress")["tokens"] == 5


class TestWhatChanged:
    """Since the job began; none of it is taken for the same job in silence."""

    @pytest.fixture(autouse=True)
    def begun(self, world: JobWorld) -> None:
        world.ask(*asks(BEGUN))
        killed_after(2, world)
        assert world.texts() == ["x"]

    def refusal(self, world: JobWorld) -> str:
        before = world.target.read_bytes()
        with pytest.raises(UsageError) as refused:
            world.start()
        assert world.target.read_bytes().startswith(before)
        assert "--restart" in str(refused.value)
        return str(refused.value)

    def test_a_row(self, world: JobWorld) -> None:
        world.ask(*asks((1, 6, 3, 1, 4, 2)))
        assert "row 2 of the input changed" in self.refusal(world)

    def test_the_name_of_a_row(self, world: JobWorld) -> None:
        rows = asks(BEGUN)
        world.ask({"custom_id": "new", "prompt": "Hi", "max_tokens": 1}, *rows[1:])
        assert "row 1 of the input changed" in self.refusal(world)

    def test_the_number_of_rows(self, world: JobWorld) -> None:
        world.ask(*asks(BEGUN[:4]))
        assert "ends at row 4, it had a row 6" in self.refusal(world)

    def test_the_model(self, world: JobWorld) -> None:
        world.files["model.safetensors"] = "9 bytes"
        assert "the model model changed: model.safetensors" in self.refusal(world)

    def test_the_parameters(self, world: JobWorld) -> None:
        world.defaults = {"max_tokens": 32, "stop": "."}
        assert "--max-tokens was 16, is 32; the model's own stop was [], is ['.']" in self.refusal(world)

    def test_a_parameter_that_the_model_or_a_flag_sets(self, world: JobWorld) -> None:
        def said(given: tuple[str, ...], given_now: tuple[str, ...]) -> list[str]:
            before = JobIdentity("model", {}, {}, {"top_p": 0.9}, given)
            now = JobIdentity("model", {}, {}, {"top_p": 0.5}, given_now)
            return now.changes_since(JobIdentity.from_json(before.as_json()))

        assert said(("top_p",), ("top_p",)) == ["--top-p was 0.9, is 0.5"]
        assert said(("top_p",), ()) == ["--top-p was 0.9, is not given, and the model's own is 0.5"]
        assert said((), ("top_p",)) == ["--top-p was not given, with 0.9 the model's own, is 0.5"]
        assert said((), ()) == ["the model's own top p was 0.9, is 0.5"]

    def test_rows_that_were_added_are_answered(self, world: JobWorld) -> None:
        world.ask(*asks((*BEGUN, 7))).start()
        assert world.texts() == [text(length) for length in (*BEGUN, 7)]


def test_a_row_that_had_an_error_may_be_corrected(world: JobWorld) -> None:
    good = asks((1, 2))
    world.ask(b"{bad", *good).start()
    assert world.texts() == [None, "x", "xx"]
    world.ask({"prompt": "Hi", "max_tokens": 3}, *good)
    again = FakeLLM()
    world.start(again)
    assert (world.texts(), len(again.asked)) == (["xxx", "x", "xx"], 1)


class TestADiskThatFails:
    """The job waits, and goes on when it can; nothing is lost, twice or torn."""

    @pytest.mark.parametrize("times", [1, 3])
    def test_under_the_output(self, world: JobWorld, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        write, left = jsonl_answers._write_all, [times]

        def half(file: BinaryIO, data: bytes) -> None:
            if left[0]:
                left[0] -= 1
                file.write(data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            write(file, data)

        monkeypatch.setattr(jsonl_answers, "_write_all", half)
        llm = FakeLLM()
        assert world.ask(*asks(LENGTHS)).start(llm) == DONE
        assert world.texts() == [text(length) for length in LENGTHS]
        pauses = [line for line in world.said if line.startswith("paused: ")]
        assert len(pauses) == times
        assert f"cannot write {world.target}: No space left on device" in pauses[0] and "Free some space" in pauses[0]
        assert "trying again in " in pauses[0]
        assert len(llm.asked) == len(LENGTHS)

    def test_under_the_journal(self, world: JobWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        finish, left = Journal.finish, [3]

        def failing(self: Journal, *arguments: Any, **facts: Any) -> None:
            if left[0]:
                left[0] -= 1
                raise StorageError("the journal cannot be used: database or disk is full")
            finish(self, *arguments, **facts)

        monkeypatch.setattr(Journal, "finish", failing)
        llm = FakeLLM()
        assert world.ask(*asks(LENGTHS)).start(llm) == DONE
        assert world.texts() == [text(length) for length in LENGTHS]
        assert (len(world.said), len(llm.asked)) == (3, len(LENGTHS))

    def test_under_the_model(self, world: JobWorld) -> None:
        llm = FakeLLM(fails_after=[2, 1])
        assert world.ask(*asks(LENGTHS)).start(llm) == DONE
        assert world.texts() == [text(length) for length in LENGTHS]
        assert [line.split(":")[0] for line in world.said] == ["paused", "paused"]
        assert (llm.adopted, len(llm.workloads)) == ([llm.plan, llm.plan], 1)  # loaded again by the plan it had

    @pytest.mark.parametrize("stops_after", [0, 1, 5])
    def test_under_the_input(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_after: int) -> None:
        """It is read on from where it was, and the model has nothing to do with it."""
        rows, left = JsonlRows.rows, [2]

        def failing(self: JsonlRows) -> Iterator[Any]:
            for number, row in enumerate(rows(self)):
                if left[0] and number >= stops_after:
                    left[0] -= 1
                    raise StorageError("in.jsonl cannot be read: Input/output error")
                yield row

        world, llm = JobWorld(tmp_path, window=2), FakeLLM(block_size=2)
        monkeypatch.setattr(JsonlRows, "rows", failing)
        assert world.ask(*asks([3] * 6)).start(llm) == DONE
        assert world.texts() == [text(3)] * 6
        assert len([line for line in world.said if line.startswith("paused: in.jsonl cannot be read")]) == 2
        assert (llm.adopted, len(llm.asked), len(llm.workloads)) == ([], 6, 1)

    def test_until_somebody_stops_it(self, world: JobWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(self: JsonlAnswers, rows: object) -> None:
            raise StorageError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(JsonlAnswers, "append", failing)
            assert world.ask(*asks(LENGTHS)).start(stopped=lambda: len(world.said) > 4) == STOPPED
        again = FakeLLM()
        world.start(again)
        assert world.texts() == [text(length) for length in LENGTHS]
        assert len(again.asked) < len(LENGTHS)  # what was answered was in the journal

    def test_after_waits_that_grow_to_a_minute(self) -> None:
        waits = Waits()
        assert [waits.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
        waits.reset()
        assert waits.next() == 1

    def test_when_nothing_is_begun_yet_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot write .*nowhere.*; name a file in a folder you may write to"):
            OpenJob(JobPlace(tmp_path / "nowhere" / "out.jsonl")).__enter__()


class TestWhoStopsAJob:
    def test_finds_what_was_answered_and_can_go_on(self, world: JobWorld) -> None:
        def stopped() -> bool:
            with world.journal() as journal:
                return journal.counts().finished >= 2

        world.ask(*asks(LENGTHS))
        assert world.start(stopped=stopped) == STOPPED
        with world.journal() as journal:
            assert (journal.fact("state"), journal.counts().pending > 0) == (STOPPED, True)
        assert world.start() == DONE
        assert world.texts() == [text(length) for length in LENGTHS]

    def test_may_be_another_process(self, world: JobWorld) -> None:
        world.ask(*asks(LENGTHS))

        def wish() -> bool:
            with Journal(world.place.journal) as other:
                other.keep(wish=CANCEL)
            return False

        assert world.start(stopped=wish) == CANCELLED
        with world.journal() as journal:
            assert (journal.fact("state"), journal.fact("wish")) == (CANCELLED, None)
        assert world.start() == DONE

    def test_may_be_the_number_of_errors(self, world: JobWorld) -> None:
        world.settings = JobSettings(max_errors=1)
        world.ask(b"{bad", {"prompt": "Hi"}, b"{worse")
        with pytest.raises(JobError, match="2 rows of .* have an error, more than --max-errors 1.*row 3"):
            world.start()
        world.ask(b"{bad", {"prompt": "Hi", "max_tokens": 1}, {"prompt": "Ho", "max_tokens": 2})
        with pytest.raises(UsageError, match="row 2 of the input changed"):
            world.start()
        world.ask(b"{bad", {"prompt": "Hi"}, {"prompt": "Ho", "max_tokens": 2})
        assert world.start() == DONE
        assert world.texts() == [None, text(16), "xx"]

    def test_no_row_is_looked_at_behind_the_one_that_was_too_bad(self, world: JobWorld) -> None:
        world.settings = JobSettings(max_errors=1)
        world.ask({"prompt": "Hi"}, {"prompt": [300]}, b"{bad", *[b"{worse"] * 9)
        with pytest.raises(JobError, match="2 rows of .* have an error, more than --max-errors 1, last row 3"):
            world.start()
        with world.journal() as journal:
            assert (journal.counts().refused, journal.last_number()) == (2, 3)

    def test_errors_that_were_corrected_do_not_count_though_they_are_windows_away(self, tmp_path: Path) -> None:
        world = JobWorld(tmp_path, JobSettings(max_errors=5), window=2)
        good = {"prompt": "Hi", "max_tokens": 1}
        world.ask(good, good, good, good, b"{bad", b"{bad").start()
        world.settings = JobSettings(max_errors=0)
        assert world.ask(*[good] * 6).start() == DONE
        assert world.texts() == ["x"] * 6


class TestTwoProcesses:
    def test_the_second_is_refused_with_the_first_one_s_number(self, world: JobWorld) -> None:
        with (
            OpenJob(world.place),
            pytest.raises(UsageError, match=f"process {os.getpid()} is working on this job"),
            OpenJob(world.place),
        ):
            pass
        with OpenJob(world.place):
            pass

    def test_a_job_that_was_never_begun_leaves_nothing(self, world: JobWorld) -> None:
        with OpenJob(world.place):
            assert world.place.folder.is_dir()
        assert list(world.folder.iterdir()) == []


class TestAJournal:
    def test_that_is_damaged_says_what_to_do(self, world: JobWorld) -> None:
        world.ask(*asks(LENGTHS)).start()
        world.place.journal.write_bytes(b"no database" * 1000)
        with pytest.raises(UsageError, match="is damaged: .*; pass --restart"):
            world.start()

    def test_of_another_version_is_not_guessed_at(self, world: JobWorld) -> None:
        world.ask(*asks(LENGTHS)).start()
        with Journal(world.place.journal) as journal:
            journal.keep(version=99)
        with pytest.raises(UsageError, match="is of version 99, this program writes 1"):
            world.start()

    def test_holds_an_answer_before_the_output_does(self, world: JobWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        append = JsonlAnswers.append

        def checked(self: JsonlAnswers, rows: Any) -> None:
            with world.journal() as journal:
                kept = [line for _, line in journal.in_input_order(0, 100)]
            assert all(json.loads(json.dumps(row)) in kept for row in rows)
            append(self, rows)

        monkeypatch.setattr(JsonlAnswers, "append", checked)
        assert world.ask(*asks(LENGTHS)).start() == DONE


class AnOwnAnswerer:
    """Answers without an engine of its own: what it has room for is given, and nothing is loaded for a job."""

    max_model_len, vocab_size, report = 64, 256, None
    tokenizer = cast(AnyTokenizer, FakeTokenizer())

    def check(self, sampling_params: SamplingParams) -> None:
        """Takes all."""

    def make_ready(self, workload: Workload) -> tuple[str, ...]:
        return ()

    def broken_off(self) -> None:
        raise AssertionError("nothing broke")

    def answered(
        self, asks: Iterable[Ask], workload: Workload, stream: bool, until: Callable[[], bool]
    ) -> Iterator[tuple[int, RequestOutput]]:
        for ask in asks:
            text = f"{len(ask.question.prompt_token_ids)} tokens"
            choices = (CompletionOutput(0, text, (120,), finish_reason="stop"),)
            yield ask.number, RequestOutput(str(ask.number), None, ask.question.prompt_token_ids, choices, True)
            if until():
                return


def test_a_job_may_be_answered_by_what_answers_others_too(world: JobWorld) -> None:
    answerer = AnOwnAnswerer()
    assert world.ask({"prompt": "Hi"}, b"{bad", {"prompt": "Hello"}).start(answerer) == DONE
    assert world.texts() == ["2 tokens", None, "5 tokens"]
