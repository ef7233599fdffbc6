"""A batch writes whole rows in the order of its questions, and keeps what it has whatever ends it."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fake_llm import FakeLLM
from windlass.engine.llm import LLM
from windlass.errors import StorageError, UsageError
from windlass.facts.batch_row import parse_rows
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.run_report import RunReport
from windlass.facts.workload import Workload
from windlass.jobs.answer_file import AnswerFile, check_apart
from windlass.jobs.batch_file import answer_questions, questions, workload
from windlass.jobs.question_file import read_rows


def asked_rows(*rows: Any) -> list[Any]:
    return parse_rows([json.dumps(row).encode() if isinstance(row, dict) else row for row in rows])


def run(llm: FakeLLM, path: Path, *rows: Any) -> BatchSummary:
    engine = cast(LLM, llm)
    asked = questions(engine, asked_rows(*rows), llm.default_sampling_params)
    with AnswerFile(str(path)) as answers:
        return answer_questions(engine, "model", asked, answers)


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> list[str | None]:
    return [row["response"] and row["response"]["body"]["choices"][0]["text"] for row in written(path)]


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    """A disk that takes no more: writing on fails half way, as on a full one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_answers_stand_in_the_order_of_the_questions_though_they_end_in_another(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    summary = run(FakeLLM(), out, *({"prompt": "Hi", "max_tokens": n} for n in (5, 1, 3)))
    assert texts(out) == ["xxxxx", "x", "xxx"]
    assert (summary.rows, summary.answered, summary.refused) == (3, 3, ())


def test_bad_rows_get_error_rows_in_their_place_and_the_others_are_answered(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = ({"prompt": "Hi", "max_tokens": 2}, b"", b"{bad", {"prompt": [300]}, {"prompt": "Ho", "max_tokens": 1})
    summary = run(FakeLLM(), out, *rows)
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
    ],
)
def test_what_this_model_cannot_answer_is_an_error_row_too(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    out = tmp_path / "out.jsonl"
    run(FakeLLM(), out, row, {"prompt": "Hi", "max_tokens": 1})
    assert said in written(out)[0]["error"]["message"]
    assert texts(out) == [None, "x"]


def test_a_row_s_own_fields_go_before_the_defaults(tmp_path: Path) -> None:
    llm = FakeLLM()
    run(llm, tmp_path / "out.jsonl", {"prompt": "Hi", "top_p": 0.5, "max_tokens": 2}, {"prompt": "Hi"})
    (_, first), (_, second) = llm.asked
    assert (first.top_p, first.temperature, first.max_tokens) == (0.5, 0.0, 2)
    assert (second.top_p, second.max_tokens) == (1.0, 16)


def test_the_engine_plans_for_the_longest_prompt_and_answer_of_all_rows() -> None:
    llm = cast(LLM, FakeLLM())
    defaults = llm.default_sampling_params
    rows = asked_rows({"prompt": "Hello", "max_tokens": 2}, {"prompt": "Hi", "max_tokens": 9, "temperature": 1, "n": 3})
    assert workload(questions(llm, rows, defaults), 64) == Workload(4, 5, 9)
    assert workload(questions(llm, asked_rows(b"{bad"), defaults), 64) is None


def test_ctrl_c_loses_no_answer_even_one_that_waited_for_an_earlier(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = ({"custom_id": str(n), "prompt": "Hi", "max_tokens": n} for n in (1, 9, 2, 8, 3))
    with pytest.raises(KeyboardInterrupt):
        run(FakeLLM(ends_after=3), out, *rows)
    assert [row["custom_id"] for row in written(out)] == ["1", "2", "3"]


def test_a_full_disk_leaves_whole_rows_and_says_how_many(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = [{"prompt": "Hi", "max_tokens": 1}] * 3
    run(FakeLLM(), out, *rows[:1])
    one_row = out.stat().st_size
    out.unlink()
    with files_of_at_most(2 * one_row + 10), pytest.raises(StorageError, match="2 whole rows are safe in it. Free"):
        run(FakeLLM(), out, *rows)
    assert texts(out) == ["x", "x"]
    assert out.read_bytes().endswith(b"}\n")


def test_a_file_that_is_there_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    with pytest.raises(UsageError, match="out.jsonl exists; name another file, or pass --overwrite"):
        AnswerFile(str(out))
    with AnswerFile(str(out), overwrite=True) as answers:
        assert out.read_text() == "precious\n"
        answers.append([{"a": 1}])
    assert out.read_text() == '{"a": 1}\n'


def test_a_file_that_got_no_row_is_as_it_was_before(tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text("precious\n")
    with AnswerFile(str(old), overwrite=True), AnswerFile(str(new)):
        assert new.exists()
    assert old.read_text() == "precious\n"
    assert not new.exists()


def test_answers_never_go_where_the_questions_are(tmp_path: Path) -> None:
    source, link = tmp_path / "in.jsonl", tmp_path / "link.jsonl"
    source.write_text("{}\n")
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(UsageError, match="holds the questions and would be overwritten"):
            check_apart(str(source), str(target))
    check_apart(str(source), str(tmp_path / "other.jsonl"))
    check_apart("-", "-")


def test_a_path_that_cannot_be_written_is_found_when_the_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; name a file"):
        AnswerFile(str(tmp_path))
    with pytest.raises(UsageError, match="No such file or directory"):
        AnswerFile(str(tmp_path / "nowhere" / "out.jsonl"))


def test_half_a_surrogate_pair_in_a_name_comes_back_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(FakeLLM(), out, b'{"custom_id": "\\ud800", "prompt": "Hi", "max_tokens": 1}')
    assert written(out)[0]["custom_id"] == "\ud800"


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
