"""A server in a process of its own and clients that ask it, for what serving costs and for the soak."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from benchmarks.harness import ENVIRONMENT


@dataclass(slots=True)
class Heard:
    """What one client heard: seconds to the first token, between tokens, the text, and whether it came to its end."""

    first: float = 0.0
    between: list[float] = field(default_factory=list)
    text: str = ""
    done: bool = False


@contextmanager
def serving(model: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`windlass serve` on a free port -> its address and its process."""
    command = [sys.executable, "-m", "windlass", "serve", str(model), "--port", "0", "--json", "-q", *flags]
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(command)} did not start")
        try:
            yield json.loads(line)["url"], process
        finally:
            process.terminate()
            process.wait(600)


async def streamed(http: httpx2.AsyncClient, body: dict[str, object], leave_after: int | None = None) -> Heard:
    """Asks for a stream and reads it; with `leave_after` the client goes away after as many pieces."""
    heard, pieces = Heard(), 0
    before = time.perf_counter()
    async with http.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
        answer.raise_for_status()
        async for piece in _pieces(answer):
            now = time.perf_counter()
            if pieces:
                heard.between.append(now - before)
            else:
                heard.first = now - before
            before, pieces = now, pieces + 1
            heard.text += piece
            if leave_after is not None and pieces >= leave_after:
                return heard
    heard.done = True
    return heard


async def _pieces(answer: httpx2.Response) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        if line.startswith("data: {"):
            told = json.loads(line.removeprefix("data: "))
            if "error" in told:
                raise SystemExit(f"the server says {told['error']['message']}")
            yield told["choices"][0]["text"]


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 99th, by the nearest rank."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def resident_bytes(process: subprocess.Popen[str]) -> int:
    """Memory that a process holds now."""
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
