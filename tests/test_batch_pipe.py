"""A batch with a pipe at one end: whole rows in the order of its questions, and all there are whatever ends it."""

import io
import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from checkpoints import byte_llama
from fake_llm import FakeLLM
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.errors import StorageError, UsageError
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.completion import RequestOutput
from windlass.facts.job_identity import JobIdentity
from windlass.facts.job_settings import INPUT
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_facts import sampling_facts
from windlass.jobs.answers.answer_sink import AnswerSink, answer_sink
from windlass.jobs.answers.apart import check_apart
from windlass.jobs.batch.engine_call import EngineCall
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.meter import Meter
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.batch.run import Doors, Run, Work
from windlass.jobs.question_file import read_rows
from windlass.jobs.rows.held_rows import HeldRows
from windlass.jobs.rows.row_source import row_source


def lines(*rows: Any) -> bytes:
    return b"".join((json.dumps(row).encode() if isinstance(row, dict) else row) + b"\n" for row in rows)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what standard input holds."""

    def give(*rows: Any) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines(*rows))))

    return give


def run(llm: FakeLLM, out: Path) -> BatchSummary:
    """Answers standard input in a file."""
    defaults = llm.default_sampling_params
    identity = JobIdentity("model", {}, {}, sampling_facts(defaults))
    work = Work("model", HeldRows(row_source("-")), identity, defaults, patient=False)
    with Journal(None) as journal:
        sinks = [answer_sink(str(out))]

        def open_sink() -> AnswerSink:
            if not sinks:
                raise StorageError("it was given up")
            return sinks.pop()

        outbox = Outbox(journal, open_sink, INPUT, lambda line: None, leave_none=True)
        doors = Doors(lambda said: None, lambda line: None, lambda: False)
        job = Run(EngineCall(cast(LLM, llm)), work, journal, outbox, Meter(lambda event: None), doors)
        job.run()
        return job.summary()


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> list[str | None]:
    return [row["response"] and row["response"]["body"]["choices"][0]["text"] for row in written(path)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_llama(tmp_path_factory.mktemp("models") / "tiny")


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    """A disk that takes no more: writing on fails half way, as on a full one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_answers_stand_in_the_order_of_the_questions_though_they_end_in_another(
    tmp_path: Path, given: Callable[..., None]
) -> None:
    out = tmp_path / "out.jsonl"
    given(*({"prompt": "Hi", "max_tokens": n} for n in (5, 1, 3)))
    summary = run(FakeLLM(), out)
    assert texts(out) == ["xxxxx", "x", "xxx"]
    assert (summary.rows, summary.answered, summary.refused) == (3, 3, ())


def test_bad_rows_get_error_rows_in_their_place_and_the_others_are_answered(
    tmp_path: Path, given: Callable[..., None]
) -> None:
    out = tmp_path / "out.jsonl"
    given({"prompt": "Hi", "max_tokens": 2}, b"", b"{bad", {"prompt": [300]}, {"prompt": "Ho", "max_tokens": 1})
    summary = run(FakeLLM(), out)
    assert texts(out) == ["xx", None, None, "x"]
    assert [row["error"] and row["error"]["line"] for row in written(out)] == [None, 3, 4, None]
    assert "token id 300; the model has ids from 0 to 255" in written(out)[2]["error"]["message"]
    assert summary.refused == (3, 4)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "x" * 60, "max_tokens": 10}, "a prompt of 60 tokens and 10 to generate exceed the model's 64"),
        ({"prompt": "x" * 64}, "a prompt of 64 tokens and 1 to generate exceed"),
        ({"prompt": ""}, "the prompt has 0 tokens"),
        ({"prompt": "Hi", "n": 2}, "n is 2 with temperature 0"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "this template knows users only"),
        (
            {"custom_id": "\ud800", "prompt": "Hi"},
            "custom_id holds half a surrogate pair at character 0; write it whole",
        ),
        (
            {"messages": [{"role": "user", "content": "Hi \udfff"}]},
            "messages[0].content holds half a surrogate pair",
        ),
        ({"prompt": "Hi", "stop": ["\ud800"]}, "stop holds half a surrogate pair"),
        (b'{"prompt": "Hi", "seed": ' + b"7" * 5000 + b"}", "a number in the row has more than 4,300 digits"),
        (b'{"prompt": "Hi", "max_tokens": 1', "not JSON: Expecting ',' delimiter at column 33"),
        (b'{"prompt": "Hi" "max_tokens": 1}', "not JSON: Expecting ',' delimiter at column 17"),
    ],
)
def test_what_this_model_cannot_answer_is_an_error_row_too(
    tmp_path: Path, given: Callable[..., None], row: dict[str, Any] | bytes, said: str
) -> None:
    out = tmp_path / "out.jsonl"
    given(row, {"prompt": "Hi", "max_tokens": 1})
    run(FakeLLM(), out)
    assert said in written(out)[0]["error"]["message"]
    assert texts(out) == [None, "x"]


def test_a_whole_surrogate_pair_is_a_character_like_any_other(tmp_path: Path, given: Callable[..., None]) -> None:
    out = tmp_path / "out.jsonl"
    given(b'{"custom_id": "\\ud83d\\ude00", "prompt": "Hi", "max_tokens": 1}')
    run(FakeLLM(), out)
    assert written(out)[0]["custom_id"] == "\N{GRINNING FACE}"


def test_a_row_s_own_fields_go_before_the_defaults(tmp_path: Path, given: Callable[..., None]) -> None:
    llm = FakeLLM()
    given({"prompt": "Hi", "top_p": 0.5, "max_tokens": 20}, {"prompt": "Hi"})
    run(llm, tmp_path / "out.jsonl")
    (_, first), (_, second) = llm.asked
    assert (first.top_p, first.temperature, first.max_tokens) == (0.5, 0.0, 20)
    assert (second.top_p, second.max_tokens) == (1.0, 16)


def test_ctrl_c_loses_no_answer_even_one_that_waited_for_an_earlier(tmp_path: Path, given: Callable[..., None]) -> None:
    out = tmp_path / "out.jsonl"
    given(*({"custom_id": str(n), "prompt": "Hi", "max_tokens": n} for n in (1, 9, 2, 8, 3)))
    with pytest.raises(KeyboardInterrupt):
        run(FakeLLM(ends_after=3), out)
    assert [row["custom_id"] for row in written(out)] == ["1", "2", "3"]


def test_a_full_disk_leaves_whole_rows_and_is_not_waited_for(tmp_path: Path, given: Callable[..., None]) -> None:
    out = tmp_path / "out.jsonl"
    rows = [{"prompt": "Hi", "max_tokens": n} for n in (1, 2, 3)]
    given(*rows[:1])
    run(FakeLLM(), out)
    one_row = out.stat().st_size
    out.unlink()
    given(*rows)
    with files_of_at_most(2 * one_row + 10), pytest.raises(StorageError, match="2 whole rows are in it. Free"):
        run(FakeLLM(), out)
    assert texts(out) == ["x", "xx"]
    assert out.read_bytes().endswith(b"}\n")


def test_a_model_s_disk_that_fails_is_not_waited_for(tmp_path: Path, given: Callable[..., None]) -> None:
    given({"prompt": "Hi", "max_tokens": 5})
    with pytest.raises(StorageError, match="model.safetensors cannot be read"):
        run(FakeLLM(fails_after=[2]), tmp_path / "out.jsonl")


def test_answers_never_go_where_the_questions_are(tmp_path: Path) -> None:
    source, link = tmp_path / "in.jsonl", tmp_path / "link.jsonl"
    source.write_text("{}\n")
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(UsageError, match="holds the questions and would be overwritten"):
            check_apart(str(source), str(target))
    check_apart(str(source), str(tmp_path / "other.jsonl"))
    check_apart("-", "-")


def test_rows_are_held_up_to_the_first_good_one(given: Callable[..., None]) -> None:
    given(b"{bad", {"prompt": "a"}, {"prompt": "b"})
    source = HeldRows(row_source("-"))
    first = [next(source.rows()).line, next(source.rows()).line]
    assert first == [1, 1]
    assert [row.line for row in source.rows()] == [1, 2, 3]


def test_a_missing_or_empty_file_of_questions_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_rows(str(tmp_path / "nothing.jsonl"))
    (tmp_path / "empty.jsonl").write_bytes(b"\n \n")
    with pytest.raises(UsageError, match="holds no rows; write one JSON object a line"):
        read_rows(str(tmp_path / "empty.jsonl"))


def test_the_summary_names_the_refused_lines() -> None:
    assert BatchSummary(3, (2,), None).lines() == ["rows     2 of 3 answered, 1 refused (line 2); their rows say why"]
    many = BatchSummary(40, tuple(range(1, 13)), RunReport())
    assert "12 refused (lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)" in many.lines()[0]
    assert many.as_dict()["refused_lines"] == list(range(1, 13))


class TestTheCommandLine:
    """`-i -` and `-o -`."""

    def batch(self, model: str, target: str, *rows: Any, flags: tuple[str, ...] = ()) -> Any:
        command = ("batch", model, "-i", "-", "-o", target, "--max-tokens", "2", "-q", *flags)
        return CliRunner().invoke(app, command, input=lines(*rows), prog_name="windlass")

    def test_takes_the_flags_of_a_job_and_leaves_nothing_of_one(self, model: str, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        rows = ({"prompt": "Once"}, b"{bad", b"{worse", {"prompt": "Twice"})
        result = self.batch(model, str(out), *rows, flags=("--max-errors", "1"))
        assert result.exit_code == 1
        assert "2 rows of standard input have an error, more than --max-errors 1" in result.stderr
        assert list(tmp_path.iterdir()) == [out]

    def test_keeps_what_is_there_unless_it_may_go(self, model: str, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        out.write_text("precious\n")
        assert (
            "out.jsonl exists; name another file, or pass --overwrite"
            in self.batch("no-such-model", str(out), {"prompt": "Once"}).stderr
        )
        assert self.batch("no-such-model", str(out), {"prompt": "Once"}, flags=("--overwrite",)).exit_code == 1
        assert out.read_text() == "precious\n"
        assert self.batch(model, str(out), {"prompt": "Once"}, flags=("--overwrite",)).exit_code == 0
        assert len(written(out)) == 1

    def test_stopped_says_how_many_rows_there_are(self, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = LLM.answer

        def interrupted(*arguments: Any, **named: Any) -> Iterator[RequestOutput]:
            yield next(answer(*arguments, **named))
            raise KeyboardInterrupt

        monkeypatch.setattr(LLM, "answer", interrupted)
        result = self.batch(model, "-", {"prompt": "a", "max_tokens": 9}, {"prompt": "b", "max_tokens": 1})
        assert (result.exit_code, result.stderr) == (130, "interrupted: 1 row went to standard output\n")
        assert [json.loads(line)["custom_id"] for line in result.stdout.splitlines()] == ["line-2"]

    def test_without_one_good_row_needs_no_model(self, tmp_path: Path) -> None:
        result = self.batch("no-such-model", "-", b"{bad", b"{worse")
        assert result.exit_code == 1
        assert [json.loads(line)["error"]["line"] for line in result.stdout.splitlines()] == [1, 2]
