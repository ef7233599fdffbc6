"""Measures what the machine can do, briefly: every plan and every speed shown is set against these figures.

Legend: matmul is x (rows, size) times w (size, size), as a linear layer multiplies.
"""

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import torch

from windlass.errors import StorageError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.extent import Extent
from windlass.facts.piece import BLOCK
from windlass.memory.arena import Arena
from windlass.memory.disk import O_DIRECT, DiskReader
from windlass.memory.ticket import Ticket
from windlass.units import MIB, format_size

CHUNKS = (MIB, 8 * MIB, 64 * MIB)
DEPTHS = (1, 4, 8, 32)
ROUNDS = 2
# Of the best rate: settings above that are as good.
AS_GOOD = 0.9

# What a reader does where nothing could be measured, and what wins among equals.
DEFAULT_CHUNK, DEFAULT_DEPTH = 8 * MIB, 8


def measure_disk(path: str | Path, seconds: float = 2.5, most: int = 512 * MIB) -> DiskProfile:
    """Reads existing files (`path`, or those in the folder `path`) in every size and depth; the fastest wins.

    All settings together take about `seconds`; each reads at most `most` bytes a round. Those that are never in full
    flight within `most` or within the files are left out; files of less than 1 MiB give the rate 0.0. Takes 64 MiB.
    Raises StorageError if there is nothing to read or it cannot be read.
    """
    files = _files(Path(path))
    total = sum(size for _, size in files)
    direct, reason = _try_direct(files[0][0])
    settings = [(chunk, depth) for chunk in CHUNKS for depth in DEPTHS if chunk * depth <= min(most, total)]
    if not settings:
        reason += f"; not measured, since {path} holds {format_size(total)} and {format_size(CHUNKS[0])} are needed"
        return DiskProfile(0.0, DEFAULT_CHUNK, DEFAULT_DEPTH, direct, reason)
    tape = _Tape(files, max(chunk for chunk, _ in settings))
    share = seconds / len(settings) / ROUNDS
    profiles = [DiskProfile(0.0, chunk, depth, direct, reason) for chunk, depth in settings]
    # Round after round, so that a busy moment does not fall on one setting alone.
    for _ in range(ROUNDS):
        profiles = [replace(it, rate=max(it.rate, tape.rate(it, share, most))) for it in profiles]
    tape.close()
    return _choose(profiles)


def measure_matmul(dtype: torch.dtype, rows: int, size: int = 4096, seconds: float = 0.3) -> float:
    """Flops/s of x (rows, size) @ w (size, size).T in `dtype` on the CPU: the best of a few runs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, size, generator=generator).to(dtype)
    w = torch.randn(size, size, generator=generator).to(dtype)
    best = _best_seconds(lambda: torch.nn.functional.linear(x, w), seconds)
    return 2.0 * rows * size * size / best


class _Tape:
    """The bytes of `files` one after the other, over and over, so that no setting finds what another has just read."""

    def __init__(self, files: list[tuple[str, int]], buffer: int) -> None:
        self._extents = self._run(files)
        self._length = 0
        self._arena = Arena(buffer)
        # Fresh pages would be charged to the first setting.
        self._arena.tensor(0, torch.uint8, (buffer,)).fill_(0)

    def rate(self, profile: DiskProfile, seconds: float, most: int) -> float:
        """Bytes/s of reading on for `seconds`, `most` bytes at most. Reads land on each other: nobody looks at them."""
        reader = DiskReader(profile)
        try:
            return self._timed(reader, seconds, most)
        finally:
            reader.close()

    def close(self) -> None:
        self._arena.close()

    def _timed(self, reader: DiskReader, seconds: float, most: int) -> float:
        profile = reader.profile
        places = cycle(range(0, self._arena.nbytes - profile.chunk + 1, profile.chunk))
        tickets: deque[Ticket] = deque()
        start, asked = time.perf_counter(), 0
        while asked + profile.chunk <= most and (asked == 0 or time.perf_counter() - start < seconds):
            extent = self._next(profile.chunk)
            tickets.append(reader.submit([(extent, self._arena.view(next(places), profile.chunk))]))
            asked += extent.nbytes
            # One more than are in flight, so that no reader waits for this loop.
            if len(tickets) > profile.depth:
                tickets.popleft().wait()
        for ticket in tickets:
            ticket.wait()
        return reader.bytes_read / (time.perf_counter() - start)

    def _next(self, nbytes: int) -> Extent:
        self._length = nbytes
        return next(self._extents)

    def _run(self, files: list[tuple[str, int]]) -> Iterator[Extent]:
        for file, size in cycle(files):
            offset = 0
            while size - offset >= BLOCK:
                nbytes = min(self._length, size - offset)
                yield Extent(file, offset, nbytes)
                offset += nbytes + -nbytes % BLOCK


def _choose(profiles: Sequence[DiskProfile]) -> DiskProfile:
    """Of the settings as good as the best, the one nearest to 8 reads of 8 MiB, with the best's rate as the limit.

    What a disk shows differs by a tenth from one moment to the next. And measured alone says little: beside a busy CPU
    64 MiB x 1 and 8 MiB x 4 lose a fifth to an eighth, deeper ones nothing. Huge reads fill the queue badly from short
    pieces.
    """
    rate = max(profile.rate for profile in profiles)

    def strangeness(profile: DiskProfile) -> tuple[bool, float]:
        distance = abs(math.log2(profile.chunk / DEFAULT_CHUNK)) + abs(math.log2(profile.depth / DEFAULT_DEPTH))
        return profile.depth < DEFAULT_DEPTH, distance

    return replace(min((it for it in profiles if it.rate >= AS_GOOD * rate), key=strangeness), rate=rate)


def _best_seconds(action: Callable[[], object], seconds: float) -> float:
    """The shortest time of `action`, run for `seconds` and at least three times."""
    action()
    best, start, runs = math.inf, time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - begin)
        runs += 1
    return best


def _files(path: Path) -> list[tuple[str, int]]:
    """(file, size) of what there is to read: the checkpoint's shards, or else the files of the folder by size."""
    found = sorted(path.glob("*.safetensors")) or sorted(path.glob("*")) if path.is_dir() else [path]
    files = [(os.path.abspath(file), file.stat().st_size) for file in found if file.is_file()]
    readable = [(file, size) for file, size in files if size >= BLOCK] or files
    if not readable:
        raise StorageError(f"{path} holds no file to measure the disk with; name a checkpoint or a big file")
    return readable


def _try_direct(file: str) -> tuple[bool, str]:
    """Whether O_DIRECT works for `file`, and the reason to show. Raises StorageError if it cannot be read."""
    if not O_DIRECT:
        return False, f"buffered reads: {sys.platform} has no O_DIRECT"
    reader, arena = DiskReader(DiskProfile(0.0, BLOCK, 1, True, "")), Arena(BLOCK)
    try:
        reader.read([(Extent(file, 0, min(BLOCK, os.path.getsize(file))), arena.view(0, BLOCK))])
        direct = reader.direct(file)
    finally:
        reader.close()
        arena.close()
    if direct:
        return True, "direct I/O: the filesystem takes O_DIRECT"
    return False, f"buffered reads: the filesystem of {os.path.dirname(file)} refuses O_DIRECT"
