"""A file to measure a disk with: written around the page cache, which measures writing, and read back cold."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from windlass.errors import StorageError
from windlass.memory.arena import Arena
from windlass.memory.disk import O_DIRECT
from windlass.units import MIB

SAMPLE_BYTES = 512 * MIB
CHUNK, DEPTH = 8 * MIB, 4


@dataclass(frozen=True, slots=True)
class DiskSample:
    """`write_rate` bytes/s, until the disk said that it has them."""

    file: Path
    nbytes: int
    write_rate: float
    direct: bool


@contextmanager
def disk_sample(folder: Path, nbytes: int = SAMPLE_BYTES) -> Iterator[DiskSample]:
    """A file of `nbytes` random bytes in `folder`, on the disk and in no cache, removed afterwards.

    Raises StorageError where it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix="windlass-sample-", dir=folder)
        try:
            seconds, direct = _write(descriptor, name, nbytes)
            yield DiskSample(Path(name), nbytes, nbytes / seconds, direct)
        finally:
            os.close(descriptor)
            os.unlink(name)
    except OSError as error:
        raise StorageError(f"cannot write a sample to {folder}: {error.strerror}; name another folder") from error


def _write(descriptor: int, name: str, nbytes: int) -> tuple[float, bool]:
    """Seconds of writing and flushing, and whether the page cache was left out."""
    writer, direct = _direct_writer(name, descriptor)
    arena = Arena(min(nbytes, 4 * CHUNK))
    try:
        # Random bytes: a disk or filesystem that compresses would flatter itself with zeros.
        arena.tensor(0, torch.uint8, (arena.nbytes,)).copy_(
            torch.randint(
                256, (arena.nbytes,), dtype=torch.uint8, generator=torch.Generator().manual_seed(time.time_ns())
            )
        )
        start = time.perf_counter()
        with ThreadPoolExecutor(DEPTH) as threads:
            for done in [threads.submit(_write_chunk, writer, arena, at, nbytes) for at in range(0, nbytes, CHUNK)]:
                done.result()
        os.fsync(writer)
        seconds = time.perf_counter() - start
    finally:
        arena.close()
        if writer != descriptor:
            os.close(writer)
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return seconds, direct


def _write_chunk(writer: int, arena: Arena, at: int, nbytes: int) -> None:
    view = arena.view(at % arena.nbytes, min(CHUNK, nbytes - at))
    done = 0
    while done < len(view):
        done += os.pwrite(writer, view[done:], at + done)


def _direct_writer(name: str, descriptor: int) -> tuple[int, bool]:
    """A second descriptor around the page cache where the filesystem takes one, else the first."""
    if not O_DIRECT:
        return descriptor, False
    try:
        return os.open(name, os.O_WRONLY | os.O_CLOEXEC | O_DIRECT), True
    except OSError:
        return descriptor, False  # tmpfs and some network filesystems refuse O_DIRECT
