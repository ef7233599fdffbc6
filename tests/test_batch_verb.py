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
from windlass.cli import batch_work
from windlass.cli.job_stop import JobStop
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.jobs.batch.ending import RUNNING
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.place import JobPlace

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


class Opened(Exception):
    """The model was opened."""


class TestAJobThatIsDoneAndAskedAgain:
    """It needs no model as long as nothing has changed."""

    @pytest.fixture
    def job(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
        """A model and a folder with a job that is done; to open a model raises Opened from now on."""
        model = byte_llama(tmp_path / "model")
        ask(tmp_path, ROWS)
        assert batch(model, tmp_path).exit_code == 0

        def opened(*arguments: object) -> None:
            raise Opened

        monkeypatch.setattr(batch_work, "opened", opened)
        return model, tmp_path

    def opens(self, *arguments: Any, **named: Any) -> bool:
        result = batch(*arguments, **named)
        assert (result.exit_code == 0) != isinstance(result.exception, Opened), result.stderr
        return isinstance(result.exception, Opened)

    def test_tells_the_same_and_mends_its_output(self, job: tuple[str, Path]) -> None:
        model, folder = job
        written = (folder / "out.jsonl").read_bytes()
        again = batch(model, folder, "--json")
        assert (again.exit_code, json.loads(again.stdout)["answered"]) == (0, 3)
        (folder / "out.jsonl").write_bytes(written[:-7])
        assert not self.opens(model, folder)
        assert (folder / "out.jsonl").read_bytes() == written

    def test_opens_it_for_other_rows(self, job: tuple[str, Path]) -> None:
        model, folder = job
        stamps = os.stat(folder / "in.jsonl")
        ask(folder, [ROWS[0] | {"custom_id": "r9"}, *ROWS[1:]])
        os.utime(folder / "in.jsonl", ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        assert self.opens(model, folder), "neither size nor date tells"
        ask(folder, ROWS)
        assert not self.opens(model, folder)
        ask(folder, [*ROWS, {"prompt": "more"}])
        assert self.opens(model, folder)

    @pytest.mark.parametrize(
        "flags",
        [
            ("--max-tokens", "9"), ("--temperature", "0.5"), ("--stop", "x"), ("--seed", "3"), ("--dtype", "bfloat16"),
            ("--max-model-len", "32"), ("--kv-cache-dtype", "int8"), ("--chat",), ("--max-errors", "0", "--restart"),
        ],
        ids=" ".join,
    )  # fmt: skip
    def test_opens_it_for_other_flags(self, job: tuple[str, Path], flags: tuple[str, ...]) -> None:
        assert self.opens(*job, *flags)

    def test_opens_it_for_another_model(self, job: tuple[str, Path]) -> None:
        model, folder = job
        weights = next(Path(model).glob("*.safetensors"))
        stamps = os.stat(weights)
        os.utime(weights, ns=(stamps.st_atime_ns, stamps.st_mtime_ns + 1))
        assert self.opens(model, folder)
        os.utime(weights, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        assert not self.opens(model, folder)
        (Path(model) / "generation_config.json").write_text('{"temperature": 0.5}')
        assert self.opens(model, folder)

    def test_opens_it_for_a_job_that_is_not_done(self, job: tuple[str, Path]) -> None:
        model, folder = job
        with Journal(JobPlace(folder / "out.jsonl").journal) as journal:
            journal.keep(state=RUNNING)
        assert self.opens(model, folder)


def test_too_many_errors_are_a_failure_and_some_are_not(model: str, folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"prompt": "Once", "max_tokens": 1}\n{bad\n{worse\n')
    failed = batch(model, folder, "--max-errors", "1")
    assert (failed.exit_code, "have an error, more than --max-errors 1, last row 3" in failed.stderr) == (1, True)
    assert batch(model, folder).exit_code == 0
    assert batch(model, folder, "--max-errors", "1").exit_code == 1, "though it is done"


def test_a_name_that_says_nothing_gets_json_lines_and_that_is_said(model: str, folder: Path) -> None:
    command = ("batch", model, "-i", str(folder / "in.jsonl"), "-o", str(folder / "out.txt"))
    result = CliRunner().invoke(app, command, prog_name="windlass")
    assert result.exit_code == 0
    assert f"{folder}/out.txt gets JSON lines, whatever its name; call it .jsonl to say so" in result.stderr
    assert [json.loads(line)["custom_id"] for line in (folder / "out.txt").read_text().splitlines()] == [
        "r1", "r2", "r3",
    ]  # fmt: skip


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


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_a_quiet_batch_that_fails_says_in_a_line_what_came_of_it(tmp_path: Path, output: str) -> None:
    ask(tmp_path, [{"prompt": "Once", "max_tokens": -1}])
    target = str(tmp_path / output) if output != "-" else output
    command = ["batch", "no-such-model", "-i", str(tmp_path / "in.jsonl"), "-o", target, "-q"]
    result = CliRunner().invoke(app, command, prog_name="windlass")
    assert result.exit_code == 1
    assert result.stderr == "rows     0 of 1 answered, 1 refused (line 1); their rows say why\n"
