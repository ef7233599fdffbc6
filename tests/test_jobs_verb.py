"""`windlass jobs` shows how the jobs of this machine stand, and ends one."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fake_llm import FakeLLM
from job_world import JobWorld, asks
from windlass.cli.main import app
from windlass.facts.job_record import JobRecord
from windlass.jobs.batch.ending import CANCEL, PAUSED, RUNNING
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.place import OpenJob
from windlass.jobs.batch.registry import Registry


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
    return Registry(tmp_path / "cache")


@pytest.fixture
def world(tmp_path: Path, registry: Registry) -> JobWorld:
    """A job that is known here and not begun."""
    world = JobWorld(tmp_path)
    place = world.place
    registry.add(
        JobRecord(
            place.id, "model", str(world.source), str(world.target), str(place.journal), str(place.lock),
            "windlass batch model -i in.jsonl -o out.jsonl", str(tmp_path), "2026-11-26T01:00:00+00:00",
        )
    )  # fmt: skip
    return world.ask(*asks((1, 4, 2)), b"{bad")


def windlass(*arguments: str) -> Any:
    return CliRunner().invoke(app, ("jobs", *arguments), prog_name="windlass")


def seen() -> dict[str, Any]:
    """What a machine is told of the only job."""
    (job,) = json.loads(windlass("--json").stdout)
    return dict(job)


def killed(world: JobWorld) -> None:
    with pytest.raises(KeyboardInterrupt):
        world.start(FakeLLM(ends_after=1))
    with Journal(world.place.journal) as journal:
        journal.keep(state=RUNNING)  # a process that is killed cannot say so


def test_without_jobs_it_says_how_to_begin_one() -> None:
    assert "no jobs yet; `windlass batch MODEL -i prompts.jsonl -o answers.jsonl` begins one" in windlass().stdout


def test_a_job_that_is_done_says_how_many_rows_it_has(world: JobWorld) -> None:
    world.start()
    job = seen()
    assert (job["state"], job["rows_done"], job["rows_total"], job["rows_refused"]) == ("done", 4, 4, 1)
    assert (job["tokens"], job["id"], job["pid"]) == (7, world.place.id, None)
    header, line = windlass().stdout.splitlines()
    assert header.split()[:4] == ["id", "state", "rows", "errors"]
    assert line.split()[:6] == [world.place.id, "done", "4", "of", "4", "1"]


def test_a_job_that_was_killed_is_stopped_and_says_how_to_go_on(world: JobWorld) -> None:
    killed(world)
    shown = windlass("show", world.place.id[:3]).stdout
    assert f"job      {world.place.id}: stopped\n" in shown
    assert "rows     2 of 4, 1 with an error" in shown
    assert "command  windlass batch model -i in.jsonl -o out.jsonl" in shown
    assert f"the same command, in {world.folder}, goes on with it" in shown


@pytest.mark.parametrize("state", [RUNNING, PAUSED])
def test_a_job_at_work_is_told_by_its_lock(world: JobWorld, state: str) -> None:
    killed(world)
    with OpenJob(world.place) as job:
        job.begin().keep(state=state)
        assert (seen()["state"], seen()["pid"] is not None) == (state, True)
    assert seen()["state"] == "stopped"


def test_a_job_at_work_is_told_to_end(world: JobWorld) -> None:
    killed(world)
    with OpenJob(world.place) as job:
        result = windlass("cancel", world.place.id)
        assert (result.exit_code, job.begin().fact("wish")) == (0, CANCEL)
        assert "ends it after the pass in flight" in result.stdout


def test_a_job_that_nobody_works_on_is_cancelled_at_once_and_can_go_on(world: JobWorld) -> None:
    killed(world)
    assert "its command takes it up again: windlass batch model" in windlass("cancel", world.place.id).stdout
    assert seen()["state"] == "cancelled"
    world.start()
    assert seen()["state"] == "done"


def test_a_job_whose_journal_was_removed_is_gone_until_it_is_pruned(world: JobWorld) -> None:
    result = windlass()
    assert f"{world.place.id}  gone" in result.stdout and "`windlass jobs --prune` forgets them" in result.stderr
    assert windlass("cancel", world.place.id).exit_code == 2
    assert "no jobs yet" in windlass("--prune").stdout


def test_a_job_is_known_by_its_output_too(world: JobWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(world)
    monkeypatch.chdir(world.folder)
    for name in (world.target.name, str(world.target), f"./{world.target.name}"):
        assert f"job      {world.place.id}: stopped\n" in windlass("show", name).stdout
    assert windlass("cancel", world.target.name).exit_code == 0
    assert seen()["state"] == "cancelled"
    assert windlass("show", world.source.name).exit_code == 2


def test_an_id_that_nobody_has_is_misuse(world: JobWorld) -> None:
    result = windlass("show", "zzz")
    assert (result.exit_code, result.stderr) == (
        2, "error: no job has the id or output zzz; see `windlass jobs`\n",
    )  # fmt: skip
