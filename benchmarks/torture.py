"""A job that is killed, runs out of disk and cannot read its model ends with the tokens of an undisturbed one.

    python -m benchmarks torture                       # 200 rows, 30 kills, on the model in the box, float32
    python -m benchmarks torture --rows 40 --kills 5 --parts killed full

Every start is a process of its own, and the killing is SIGKILL at random instants. The full disk is a tmpfs where one
may be mounted, else the part is left out; so is that of read errors where there is no strace to inject them. Prints
what happened, and ends with 1 where a row is missing, there twice, or has other tokens.
"""

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import ENVIRONMENT, machine
from windlass.jobs.batch.place import JobPlace
from windlass.jobs.demo_verse import OPENINGS, SPEAKERS
from windlass.packaged_model import packaged_model_folder

Tokens = dict[str, list[int]]
PARTS = ("killed", "full", "errors")
POLL = 0.002
"""Seconds between two looks at the journal."""
FLAGS = ("--dtype", "float32", "--device", "cpu", "--checkpoint-every", "8")
BUSY = (*FLAGS, "--block-size", "4")
STREAMED = (*FLAGS, "--block-size", "8", "--micro-batch-tokens", "128")
DISK, ROOM = 32 << 20, 200 << 10
"""Bytes of the small disk, and what of them is free at first."""
STRACE = ("strace", "-f", "-qqq", "--seccomp-bpf", "-o", os.devnull, "-P")
INJECTED = ("-e", "trace=preadv,preadv2", "-e", "inject=preadv,preadv2:error=EIO:when=500+2500")


@dataclass
class Job:
    """A batch of `source` into `target`; what its processes said is in `said`."""

    source: Path
    target: Path
    flags: tuple[str, ...] = FLAGS
    before: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)

    def start(self) -> "subprocess.Popen[str]":
        """One process; standard error goes to a file that grows."""
        command = [*self.before, sys.executable, "-m", "windlass", "batch", str(packaged_model_folder())]
        command += ["-i", str(self.source), "-o", str(self.target), *self.flags]
        number, name = tempfile.mkstemp(suffix=".log")
        self._log = Path(name)
        with os.fdopen(number, "w") as log:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, text=True, env=ENVIRONMENT)

    def log(self) -> str:
        """What the process at work has said, without its progress."""
        lines = self._log.read_text().splitlines()
        return "\n".join(line for line in lines if not line.startswith('{"event"'))

    def ended(self, process: "subprocess.Popen[str]") -> int:
        """Its exit code, once it has ended."""
        code = process.wait()
        self.said.append(self.log())
        self._log.unlink()
        return code

    def finish(self) -> None:
        """Starts it and waits. Raises SystemExit where it fails."""
        code = self.ended(self.start())
        if code:
            raise SystemExit(f"the job ended with {code}:\n{self.said[-1]}")

    def finished_rows(self) -> int:
        """Rows with a line in the journal; 0 before there is one."""
        journal = JobPlace(self.target).journal
        if not journal.exists():
            return 0
        connection = sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            return int(connection.execute("SELECT COUNT(*) FROM entry WHERE state > 0").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # it is being made
        finally:
            connection.close()

    def tokens(self) -> dict[str, list[int]]:
        """The tokens of each row. Raises SystemExit where a row is torn or there twice."""
        rows = [json.loads(line) for line in self.target.read_text().splitlines()]
        twice = [name for name, count in Counter(row["custom_id"] for row in rows).items() if count > 1]
        if twice:
            raise SystemExit(f"{len(twice)} rows are there twice: {twice[:5]}")
        return {row["custom_id"]: row["response"]["body"]["choices"][0]["token_ids"] for row in rows}


def write_questions(path: Path, rows: int, draw: random.Random) -> None:
    """Verse to go on with; every tenth answer is sampled, without a seed of its own."""
    with path.open("w") as file:
        for number in range(rows):
            head = f"{draw.choice(SPEAKERS)}:\n{draw.choice(OPENINGS)}"
            row: dict[str, Any] = {"custom_id": f"row-{number}", "prompt": head + " and" * draw.randrange(12)}
            row |= {"max_tokens": draw.randint(8, 160), "return_token_ids": True}
            row |= {"temperature": 0.8} if number % 10 == 9 else {"temperature": 0}
            file.write(json.dumps(row) + "\n")


def wait_for(process: "subprocess.Popen[str]", happened: Callable[[], bool]) -> bool:
    """Whether it happened before the process ended."""
    while process.poll() is None:
        if happened():
            return True
        time.sleep(POLL)
    return False


def kill_again_and_again(job: Job, rows: int, kills: int, draw: random.Random) -> tuple[int, list[int]]:
    """Kills of processes at work, and how many rows were finished at each."""
    at: list[int] = []
    while len(at) < kills:
        done = job.finished_rows()
        most = max(1, (rows - done) // (kills - len(at) + 1))
        wanted, later = done + draw.randint(0, most), draw.uniform(0, 0.1)
        # Every fourth process is killed while it opens or loads.
        early = time.monotonic() + draw.uniform(0.5, 4) if draw.random() < 0.25 else None
        process = job.start()
        begun = early is None

        def is_due(wanted: int = wanted, early: float | None = early) -> bool:
            return time.monotonic() > early if early is not None else job.finished_rows() >= wanted > 0

        if not wait_for(process, is_due):
            if job.ended(process):
                raise SystemExit(f"the job failed:\n{job.said[-1]}")
            return len(at), at
        time.sleep(later if begun else 0.0)
        process.kill()
        if job.ended(process) == -9:
            at.append(job.finished_rows())
    return len(at), at


@contextmanager
def small_disk(nbytes: int) -> Iterator[Path | None]:
    """A tmpfs of so many bytes; None where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="windlass-small-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill_the_disk(job: Job, ballast: Path, pauses: int) -> int:
    """How often the job paused on a full disk: it is killed in the first pause, and gets room after `pauses` more."""
    process = job.start()
    if wait_for(process, lambda: "paused: " in job.log()):
        process.kill()
    job.ended(process)
    process = job.start()
    wait_for(process, lambda: job.log().count("paused: ") >= pauses)
    ballast.unlink()
    if job.ended(process):
        raise SystemExit(f"the job failed:\n{job.said[-1]}")
    return sum(said.count("paused: ") for said in job.said)


def streaming_budget(source: Path, folder: Path) -> str:
    """A little above the least budget that is not refused: weights stream under it."""
    target = folder / "refused.jsonl"
    least = 400
    while least < 1000:
        job = Job(source, target, (*STREAMED, "--host-memory", f"{least}MiB"))
        process = job.start()
        accepted = wait_for(process, partial(_is_planned, job))
        process.kill()
        job.ended(process)
        needed = re.search(r"needs (\d+) MiB", job.said[-1])
        if accepted or needed is None:
            return f"{least + 1}MiB"
        least = least + 1 if least > 400 else int(needed[1]) - 10
    raise SystemExit("every budget below 1000 MiB was refused")


def _is_planned(job: Job) -> bool:
    return "weights  " in job.log()


def compared(name: str, job: Job, right: Tokens) -> None:
    """Raises SystemExit where the rows are not those of the undisturbed run."""
    found = job.tokens()
    missing = right.keys() - found.keys()
    other = [row for row, tokens in found.items() if right.get(row) != tokens]
    if missing or other:
        raise SystemExit(f"{name}: {len(missing)} rows are missing, {len(other)} have other tokens: {other[:5]}")
    print(f"{name}: {len(found)} rows, each once, with the tokens of an undisturbed run", flush=True)


def killed(right: Tokens, source: Path, folder: Path, kills: int, draw: random.Random) -> None:
    """SIGKILL at random instants."""
    job, start = Job(source, folder / "killed.jsonl", BUSY), time.monotonic()
    count, at = kill_again_and_again(job, len(right), kills, draw)
    job.finish()
    print(f"{count} kills, with so many rows finished: {at}; {time.monotonic() - start:.0f} s in all")
    compared("killed", job, right)


def full_disk(right: Tokens, source: Path) -> None:
    """Output and journal on a disk that fills up."""
    with small_disk(DISK) as disk:
        if disk is None:
            print("full disk: left out, nothing may be mounted here")
            return
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(DISK - ROOM))
        job = Job(source, disk / "full.jsonl", BUSY)
        print(f"{fill_the_disk(job, ballast, 3)} pauses on a full disk, killed once")
        compared("full disk", job, right)


def read_errors(right: Tokens, source: Path, folder: Path) -> None:
    """Weights that stream, from a file whose reading fails now and then."""
    if shutil.which("strace") is None:
        print("read errors: left out, there is no strace here")
        return
    weights = str(packaged_model_folder() / "model.safetensors")
    flags = (*STREAMED, "--host-memory", streaming_budget(source, folder))
    job = Job(source, folder / "errors.jsonl", flags, (*STRACE, weights, *INJECTED))
    job.finish()
    said = job.said[-1]
    streams = re.search(r"weights  (.*)", said)
    print(f"{said.count('Input/output error')} read errors injected; weights {streams[1] if streams else '?'}")
    compared("read errors", job, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    print(machine())
    with tempfile.TemporaryDirectory(prefix="windlass-torture-") as name:
        folder = Path(name)
        source, start = folder / "questions.jsonl", time.monotonic()
        write_questions(source, given.rows, draw)
        calm = Job(source, folder / "calm.jsonl")
        calm.finish()
        right = calm.tokens()
        print(f"undisturbed: {len(right)} rows in {time.monotonic() - start:.0f} s", flush=True)
        if "killed" in given.parts:
            killed(right, source, folder, given.kills, draw)
        if "full" in given.parts:
            full_disk(right, source)
        if "errors" in given.parts:
            read_errors(right, source, folder)


if __name__ == "__main__":
    main()
