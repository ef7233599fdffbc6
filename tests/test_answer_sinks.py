"""Answers land in JSON lines or Parquet parts that other readers take, and are cut back to where they were good."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.errors import StorageError, UsageError
from windlass.facts.answer_columns import ANSWER_COLUMNS
from windlass.facts.batch_answer import answer, refusal
from windlass.facts.batch_row import BadRow, BatchRow, parse_row
from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.jobs.answers.answer_sink import AnswerSink, answer_sink
from windlass.jobs.answers.jsonl_answers import JsonlAnswers
from windlass.jobs.answers.parquet_answers import ParquetAnswers

Open = Callable[..., AnswerSink]
Read = Callable[[], list[str]]


def row(name: str, text: str = "said") -> dict[str, Any]:
    body = {"choices": [{"text": text, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
    return {"id": "i", "custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


def rows(*names: str) -> list[dict[str, Any]]:
    return [row(name) for name in names]


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    """A disk that takes no more: writing on fails half way, as on a full one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["answers.jsonl", "answers/"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Open, Read, Path]:
    """How to open one sink, and the names that another reader finds in it. A Parquet part has two rows."""
    path = tmp_path / request.param

    def opened(may_exist: bool = False) -> AnswerSink:
        name = f"{tmp_path}/{request.param}"
        return ParquetAnswers(name, may_exist, part_rows=2) if name.endswith("/") else JsonlAnswers(name, may_exist)

    def names() -> list[str]:
        if path.is_dir():
            return list(pyarrow.dataset.dataset(path).to_table()["custom_id"].to_pylist())
        return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]

    return opened, names, path


Place = tuple[Open, Read, Path]


def kill(sink: AnswerSink, path: Path) -> None:
    """Leaves on the disk what is there now, whatever closing the sink would have written."""
    now = path.with_name("now")
    shutil.copytree(path, now) if path.is_dir() else shutil.copy(path, now)
    sink.close()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    now.rename(path)


def append_all(sink: AnswerSink, names: str, lot: int = 2) -> None:
    for begin in range(0, len(names), lot):
        sink.append(rows(*names[begin : begin + lot]))
        sink.sync()


def test_a_job_that_is_killed_goes_on_from_its_position_with_every_row_once(place: Place) -> None:
    opened, names, path = place
    killed = opened()
    append_all(killed, "abcd")
    position = json.loads(json.dumps(killed.position()))  # as a journal keeps it
    killed.append(rows("x", "y", "z"))
    kill(killed, path)
    again = opened(may_exist=True)
    again.rewind(position)
    assert position["rows"] == 4
    append_all(again, "efg")
    again.close()
    assert names() == list("abcdefg")
    assert again.position()["rows"] == 7


def test_a_job_that_was_closed_goes_on_too(place: Place) -> None:
    opened, names, _ = place
    first = opened()
    append_all(first, "abc", lot=1)
    first.close()
    assert names() == list("abc")
    again = opened(may_exist=True)
    again.rewind(first.position())
    append_all(again, "d")
    again.close()
    assert names() == list("abcd")


def test_rows_that_stand_there_stay_until_the_first_new_ones(place: Place) -> None:
    opened, names, _ = place
    old = opened()
    append_all(old, "abcd")
    old.close()
    opened(may_exist=True).close()
    assert names() == list("abcd")
    new = opened(may_exist=True)
    new.append(rows("x", "y"))
    new.close()
    assert names() == ["x", "y"]


def test_answers_that_are_there_are_not_touched_without_leave(place: Place) -> None:
    opened, names, path = place
    old = opened()
    append_all(old, "ab")
    old.close()
    with pytest.raises(UsageError, match="name another f.*--overwrite"):
        answer_sink(str(path))
    assert names() == ["a", "b"]


def test_a_sink_that_got_no_rows_leaves_nothing_behind(place: Place) -> None:
    opened, _, path = place
    opened().close()
    assert not path.exists()


def test_less_than_the_position_says_is_an_error_that_names_it(place: Place) -> None:
    opened, _, path = place
    sink = opened()
    append_all(sink, "abcd")
    sink.close()
    if path.is_dir():
        (path / "part-00001.parquet").unlink()
    else:
        os.truncate(path, path.stat().st_size - 1)
    with (
        closing(opened(may_exist=True)) as again,
        pytest.raises(StorageError, match=r"(part-00001\.parquet is gone|was cut or replaced).*--restart"),
    ):
        again.rewind(sink.position())


def test_something_else_of_the_same_length_is_an_error(place: Place) -> None:
    opened, _, path = place
    sink = opened()
    append_all(sink, "abcd")
    sink.close()
    if path.is_dir():
        (path / "part-00000.parquet").write_bytes((path / "part-00001.parquet").read_bytes()[:-4] + b"none")
    else:
        path.write_bytes(path.read_bytes().replace(b'"d"', b'"x"'))
    with (
        closing(opened(may_exist=True)) as again,
        pytest.raises(StorageError, match=r"(damaged|was changed).*--restart"),
    ):
        again.rewind(sink.position())


def test_a_full_disk_takes_none_of_the_rows_and_all_of_them_later(place: Place) -> None:
    opened, names, path = place
    sink = opened()
    append_all(sink, "ab")
    with files_of_at_most(400), pytest.raises(StorageError, match=r"cannot write .*: File too large; 2 .*rows are in"):
        sink.append(rows("c", "d"))
    assert sink.position()["rows"] == 2
    sink.append(rows("c", "d"))
    sink.close()
    assert names() == list("abcd")
    assert not list(path.parent.rglob("*.tmp"))


@pytest.mark.parametrize("value", [-1, "3", True, 1.5])
def test_a_position_that_is_none_is_refused(place: Place, value: object) -> None:
    with closing(place[0]()) as sink, pytest.raises(StorageError, match="which is no count"):
        sink.rewind({"rows": value})


def test_a_torn_last_line_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    sink = JsonlAnswers(str(path))
    append_all(sink, "ab")
    sink.close()
    with path.open("ab") as file:
        file.write(b'{"custom_id": "c", "resp')
    with closing(JsonlAnswers(str(path), may_exist=True)) as again:
        again.rewind(sink.position())
    assert [json.loads(line)["custom_id"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_folder_never_shows_half_a_part_and_leftovers_go(tmp_path: Path) -> None:
    sink = ParquetAnswers(str(tmp_path), part_rows=2)
    append_all(sink, "ab")
    (tmp_path / ".part.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert pyarrow.dataset.dataset(tmp_path, exclude_invalid_files=True).count_rows() == 2
    ParquetAnswers(str(tmp_path), may_exist=True).rewind(sink.position())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes.txt", "part-00000.parquet"]


def test_a_part_is_written_when_its_text_is_much(tmp_path: Path) -> None:
    sink = ParquetAnswers(str(tmp_path / "answers"), part_bytes=10_000)
    for name in "abc":
        sink.append([row(name, "x" * 4000)])
    assert sink.position() == {"rows": 2, "parts": 1}


def test_the_name_of_the_path_chooses_the_sink(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("answers/", "folder", "answers.parquet"):
        assert isinstance(answer_sink(f"{tmp_path}/{name}"), ParquetAnswers)
    with closing(answer_sink(f"{tmp_path}/answers.jsonl")) as sink:
        assert isinstance(sink, JsonlAnswers)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere/answers.jsonl", "cannot write .*No such file.*a folder you may write to"),
        ("nowhere/answers/", "cannot make .*No such file"),
        ("file.parquet", "is a file, and answers in Parquet are a folder of parts"),
    ],
)
def test_a_path_that_cannot_be_written_is_misuse(tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "file.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match=said):
        answer_sink(f"{tmp_path}/{path}")


def test_standard_output_takes_rows_and_is_never_gone_on_from(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = answer_sink("-")
    sink.append(rows("a"))
    sink.close()
    assert json.loads(capfdbinary.readouterr().out)["custom_id"] == "a"
    with pytest.raises(StorageError, match="is no file, so that 1 rows"):
        answer_sink("-").rewind({"rows": 1})


def answered(body: dict[str, Any], text: str = "said", name: str = "a") -> dict[str, Any]:
    question = parse_row(1, json.dumps({"custom_id": name, **body}).encode())
    assert isinstance(question, BatchRow)
    output = RequestOutput(
        "0", None, (1, 2), (CompletionOutput(0, text, (5, 6, 7), None, None, "length"),), finished=True
    )
    return answer(question, output, "model", 1)


def columns_of(folder: Path, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    sink = ParquetAnswers(str(folder), may_exist=True)
    sink.append(lines)
    sink.close()
    return list(pyarrow.parquet.read_table(folder).to_pylist())


def test_completions_chats_and_error_rows_have_the_same_columns(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    lines = [answered({"prompt": "Hi"}), answered(chat), refusal(BadRow(3, None, "bad"))]
    completion, message, error = columns_of(tmp_path, lines)
    known = {"custom_id": "a", "text": "said", "finish_reason": "length", "error": None, "prompt_tokens": 2,
             "completion_tokens": 3}  # fmt: skip
    assert list(completion) == list(ANSWER_COLUMNS)
    for found, line in ((completion, lines[0]), (message, lines[1])):
        assert json.loads(found.pop("response")) == line["response"]
        assert found == known
    assert error == dict.fromkeys(ANSWER_COLUMNS) | {"error": "line 3: bad"}


@given(st.text(st.characters()), st.text(min_size=1))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_from_parquet(tmp_path: Path, text: str, name: str) -> None:
    (found,) = columns_of(tmp_path, [answered({"prompt": "Hi"}, text, name)])
    assert found["text"] == text.encode(errors="backslashreplace").decode()
    assert found["custom_id"] == name
