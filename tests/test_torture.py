"""Processes killed with SIGKILL while they answer a file lose nothing: `python -m benchmarks torture` in short.

The processes are forks of one that has imported the program, since importing takes longer than all they do.
"""

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from checkpoints import byte_llama
from windlass.errors import StorageError, UsageError
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.place import JobPlace
from windlass.jobs.reference import greedy_tokens

SOURCE = Path(__file__).resolve().parent.parent / "src"
ROWS, TOKENS = 12, 48
KILLS = 3

# Reads a command line as JSON, forks, runs it in the child; tells the child's number, and later how it ended. One that
# is to be killed never finishes its last rows: however late the kill comes, it comes before the end.
NURSERY = f"""ROWS = {ROWS}
import json, os, signal, sys
import windlass.jobs.batch.begin, windlass.jobs.batch.run
from windlass.cli.main import app
from windlass.jobs.batch.journal import Journal
finish = Journal.finish
def waits_for_its_end(journal, done=(), *rest, **facts):
    while journal.counts().finished + len(done) >= ROWS:
        signal.pause()
    finish(journal, done, *rest, **facts)
for line in sys.stdin:
    child = os.fork()
    if not child:
        endless, command = json.loads(line)
        if endless:
            Journal.finish = waits_for_its_end
        sys.argv = ["windlass", *command]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        app(prog_name="windlass")
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Starts processes of the program, one at a time."""

    def __init__(self) -> None:
        self._child: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
        )  # fmt: skip

    def start(self, command: Sequence[str], endless: bool = False) -> int:
        """The number of the new process; an endless one waits before its last rows until it is killed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([endless, command]) + "\n")
        self._process.stdin.flush()
        self._child = int(self._told())
        return self._child

    def has_ended(self, within: float) -> bool:
        """Whether it ended within so many seconds."""
        return bool(select.select([self._process.stdout], [], [], within)[0])

    def ended(self) -> int:
        """How it ended, once it has: its exit code, or the negative number of a signal."""
        ending, self._child = int(self._told()), None
        return ending

    def close(self) -> None:
        """Ends a process that a test which has failed has left."""
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _told(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def finished_rows(place: JobPlace) -> int:
    """As a passer-by sees it."""
    if not place.journal.exists():
        return 0
    try:
        with Journal(place.journal, read_only=True) as journal:
            return journal.counts().finished
    except (StorageError, UsageError):
        return 0  # it is being made


def test_a_job_that_is_killed_again_and_again_has_each_row_once_with_the_tokens_of_transformers(
    tmp_path: Path, nursery: Nursery
) -> None:
    model, questions, answers = tmp_path / "tiny", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    byte_llama(model)
    draw = random.Random(7)
    prompts = [draw.choices(range(3, 259), k=draw.randint(2, 30)) for _ in range(ROWS)]
    wanted = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    questions.write_text("".join(json.dumps({"prompt": prompt} | wanted) + "\n" for prompt in prompts))
    command = ["batch", str(model), "-i", str(questions), "-o", str(answers), "--block-size", "2", "-q"]
    command += ["--checkpoint-every", "5", "--device", "cpu"]
    for at in sorted(draw.sample(range(1, ROWS - 1), k=KILLS)):
        process = nursery.start(command, endless=True)
        while finished_rows(JobPlace(answers)) < at:
            assert not nursery.has_ended(within=0.002), nursery.ended()
        os.kill(process, signal.SIGKILL)
        assert nursery.ended() == -signal.SIGKILL
    nursery.start(command)
    assert nursery.ended() == 0
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["custom_id"] for row in rows] == [f"line-{number}" for number in range(1, ROWS + 1)]
    found = [tuple(row["response"]["body"]["choices"][0]["token_ids"]) for row in rows]
    assert found == greedy_tokens(model, prompts, TOKENS)
