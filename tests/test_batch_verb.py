"""`windlass batch` from file to file is a job: the same command goes on with it, and a flag begins it anew."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from checkpoints import byte_llama
from windlass.cli.job_stop import JobStop
from windlass.cli.main import app
from windlass.engine.llm import LLM

ROWS = [{"custom_id": f"r{n}", "prompt": "Once"[:n], "max_tokens": n, "temperature": 0} for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ask(tmp_path, ROWS)
    return tmp_path


def ask(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def batch(model: str, folder: Path, *flags: str, output: str = "out.jsonl") -> Any:
    command = ("batch", model, "-i", str(folder / "in.jsonl"), "-o", f"{folder}/{output}", "-q", *flags)
    return CliRunner().invoke(app, command, prog_name="windlass")


def names(folder: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in (folder / "out.jsonl").read_text().splitlines()]


def asked_at_once(stop: JobStop, enter: Callable[[JobStop], JobStop] = JobStop.__enter__) -> JobStop:
    """Ctrl-C comes before the first pass."""
    enter(stop)
    stop.asked = True
    return stop


def test_a_job_that_is_done_stays_as_it_is_and_loads_nothing(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch(model, folder).exit_code == 0
    written = (folder / "out.jsonl").read_bytes()
    monkeypatch.delattr(LLM, "_loaded")
    again = batch(model, folder, "--json")
    assert (again.exit_code, json.loads(again.stdout)["answered"]) == (0, 3)
    assert (folder / "out.jsonl").read_bytes() == written


def test_what_changed_is_named_and_restart_begins_anew(model: str, folder: Path) -> None:
    batch(model, folder)
    ask(folder, ROWS[:2])
    refused = batch(model, folder)
    assert (refused.exit_code, "ends at row 2, it had a row 3" in refused.stderr) == (2, True)
    refused = batch(model, folder, "--max-tokens", "9", "--seed", "3")
    assert "since this job began, --seed was 0, is 3; --max-tokens was 128, is 9" in refused.stderr
    assert batch("no-such-model", folder, "--restart").exit_code == 1
    assert names(folder) == ["r1", "r2", "r3"]
    ask(folder, ROWS)
    assert batch(model, folder).exit_code == 0, "what could not begin anew is still there"
    ask(folder, ROWS[:2])
    assert batch(model, folder, "--max-tokens", "9", "--restart").exit_code == 0
    assert names(folder) == ["r1", "r2"]


def test_overwrite_replaces_what_is_done_and_not_what_can_go_on(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "out.jsonl").write_text("another's\n")
    assert "exists; name another file, or pass --overwrite" in batch(model, folder).stderr
    with monkeypatch.context() as patch:
        patch.setattr(JobStop, "__enter__", asked_at_once)
        assert batch(model, folder, "--overwrite").exit_code == 130
    (folder / "in.jsonl").write_text(json.dumps(ROWS[0] | {"max_tokens": 7}) + "\n")
    assert "row 1 of the input changed" in batch(model, folder, "--overwrite").stderr
    ask(folder, ROWS)
    assert batch(model, folder, "--overwrite").exit_code == 0
    ask(folder, ROWS[1:])
    assert batch(model, folder, "--overwrite").exit_code == 0
    assert names(folder) == ["r2", "r3"]


def test_answers_may_be_parquet_in_the_order_in_which_they_end(model: str, folder: Path) -> None:
    assert batch(model, folder, "--order", "finished", output="answers/").exit_code == 0
    table = pyarrow.parquet.read_table(folder / "answers").to_pylist()
    assert sorted(row["custom_id"] for row in table) == ["r1", "r2", "r3"]
    assert {row["custom_id"]: row["completion_tokens"] for row in table} == {"r1": 1, "r2": 2, "r3": 3}
    assert batch(model, folder, "--order", "finished", output="answers/").exit_code == 0
    assert pyarrow.parquet.read_table(folder / "answers").to_pylist() == table


def test_jobs_shows_the_job_under_one_id(model: str, folder: Path) -> None:
    shown = json.loads(batch(model, folder, "--json").stdout)["job"]
    result = CliRunner().invoke(app, ("jobs", "show", shown, "--json"), prog_name="windlass")
    job = json.loads(result.stdout)
    assert (job["state"], job["rows_done"], job["rows_total"]) == ("done", 3, 3)
    assert (job["input"], job["output"]) == (str(folder / "in.jsonl"), str(folder / "out.jsonl"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    with JobStop() as stop:
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert "stopping after this pass; once more stops at once" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--order", "random"), "--order 'random' is no order; write input or finished"),
        (("--max-errors", "-1"), "--max-errors -1 is below 0"),
        (("--checkpoint-every", "0"), "--checkpoint-every"),
    ],
)
def test_flags_that_make_no_sense_are_misuse(folder: Path, flags: tuple[str, ...], said: str) -> None:
    result = batch("no-such-model", folder, *flags)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
