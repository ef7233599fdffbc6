"""Reads files into memory as fast as the disk gives them, without the page cache in between.

A fixed pool of threads keeps as many direct reads in flight as the disk's profile says. Requests are cut into chunks
and served in the order they came, so the disk never runs dry between one layer and the next; what somebody waits for
goes before what is read ahead. Where a filesystem
refuses O_DIRECT, or the platform lacks it, reads are buffered and their pages dropped behind them.
"""

import errno
import itertools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from windlass.errors import StorageError, WindlassError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.extent import Extent
from windlass.facts.piece import BLOCK
from windlass.facts.time_span import OnSpan
from windlass.memory.ticket import ReaderClosed, Ticket
from windlass.settings import num_threads

# The order in which chunks are served: what is waited for, what is read ahead, the end.
URGENT, AHEAD, END = range(3)

O_DIRECT = os.O_DIRECT if sys.platform == "linux" else 0


@dataclass(frozen=True, slots=True)
class _Source:
    """An open file, and whether it is read around the page cache."""

    descriptor: int
    direct: bool


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One read: `need` bytes of `file` at `offset` into `target`, which is longer by the padding to a block."""

    ticket: Ticket
    file: str
    offset: int
    need: int
    target: memoryview


_Chunks = queue.PriorityQueue[tuple[int, int, _Chunk | None]]


class Made(Protocol):
    """Bytes of files that are made up in place of being read."""

    def holds(self, file: str) -> bool:
        """Whether the bytes of `file` are made."""

    def fill(self, file: str, offset: int, target: memoryview) -> None:
        """Makes the bytes of `file` from `offset` on, as many as `target` has. Called by several threads.

        Raises errors of the error tree, which come out where the bytes are waited for.
        """


class DiskReader:
    """A pool of `profile.depth` threads that read `profile.chunk` bytes at a time.

    What `made` holds is asked of it, by further threads, and counts as no reading.

    An extent begins at a multiple of 4096 bytes of its file. Its target is page-aligned memory of the extent's size
    rounded up to 4096: a direct read fills the last block too. The target belongs to the reader until `wait` returns.
    """

    def __init__(self, profile: DiskProfile, made: Made | None = None) -> None:
        assert profile.chunk > 0 and profile.chunk % BLOCK == 0, f"chunk {profile.chunk} is not a multiple of {BLOCK}"
        self.profile = profile
        self._made = made
        self.bytes_read = 0
        self._on_span: OnSpan | None = None
        self._busy, self._busy_since, self._in_flight = 0.0, 0.0, 0
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}
        self._descriptors: list[int] = []
        self._closed = False
        self._chunks: _Chunks = queue.PriorityQueue()
        # What is made takes a processor and no disk, so it has threads of its own, one for each processor.
        self._to_make: _Chunks = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._threads = [self._thread(self._chunks, f"disk-{number}") for number in range(profile.depth)]
        if made is not None:
            self._threads += [self._thread(self._to_make, f"made-{number}") for number in range(num_threads())]
        for thread in self._threads:
            thread.start()

    @property
    def busy_seconds(self) -> float:
        """Seconds in which at least one read was in flight."""
        with self._lock:
            return self._busy + (time.perf_counter() - self._busy_since if self._in_flight else 0.0)

    def direct(self, file: str) -> bool:
        """Whether `file` is read around the page cache, as far as is known. Raises StorageError if it won't open."""
        return self._source(file).direct

    def listen(self, on_span: OnSpan) -> None:
        """Tells of every request from now on, from the start of its first read to the end of its last."""
        self._on_span = on_span

    def submit(
        self,
        reads: Sequence[tuple[Extent, memoryview]],
        on_done: Callable[[Ticket], None] | None = None,
        name: str = "read",
        urgent: bool = False,
    ) -> Ticket:
        """Queues the reads and returns at once. `on_done` is called by a reader thread.

        They come behind all earlier ones, or with `urgent` behind earlier ones that are urgent too. `name` says on a
        timeline what is read.
        """
        assert not self._closed, "the reader is closed"
        if self._on_span is not None:
            on_done = partial(self._tell, name, on_done)
        cuts = [cut for extent, target in reads for cut in self._cut(extent, target)]
        # One count more than there are chunks: an empty request is served too.
        ticket = Ticket(len(cuts) + 1, on_done)
        for file, offset, need, target in cuts:
            chunk = _Chunk(ticket, file, offset, need, target)
            chunks = self._to_make if self._made is not None and self._made.holds(file) else self._chunks
            chunks.put((URGENT if urgent else AHEAD, next(self._numbers), chunk))
        ticket.finish()
        return ticket

    def read(self, reads: Sequence[tuple[Extent, memoryview]], name: str = "read") -> None:
        """Reads and waits. Raises StorageError naming file and offset."""
        self.submit(reads, name=name).wait()

    def close(self) -> None:
        """Drops what is queued, waits for what is in flight, closes the files."""
        self._closed = True
        for _ in self._threads:
            self._chunks.put((END, next(self._numbers), None))
            self._to_make.put((END, next(self._numbers), None))
        for thread in self._threads:
            thread.join()
        while self._descriptors:
            os.close(self._descriptors.pop())
        self._sources.clear()

    def _cut(self, extent: Extent, target: memoryview) -> list[tuple[str, int, int, memoryview]]:
        size = extent.nbytes + -extent.nbytes % BLOCK
        assert extent.offset % BLOCK == 0, f"an extent at byte {extent.offset} does not begin at a multiple of {BLOCK}"
        assert len(target) >= size, f"a target of {len(target)} bytes for a read of {size}"
        chunk = self.profile.chunk
        return [
            (extent.file, extent.offset + at, min(chunk, extent.nbytes - at), target[at : min(at + chunk, size)])
            for at in range(0, extent.nbytes, chunk)
        ]

    def _thread(self, chunks: _Chunks, name: str) -> threading.Thread:
        return threading.Thread(target=self._serve, args=(chunks,), name=f"windlass-{name}", daemon=True)

    def _serve(self, chunks: _Chunks) -> None:
        while (chunk := chunks.get()[2]) is not None:
            if self._closed:
                chunk.ticket.finish(ReaderClosed())
            elif chunk.ticket.error is not None:
                chunk.ticket.finish()
            elif self._made is not None and self._made.holds(chunk.file):
                chunk.ticket.finish(_error_of_making(self._made, chunk))
            else:
                self._serve_chunk(chunk)

    def _serve_chunk(self, chunk: _Chunk) -> None:
        error = None
        if self._on_span is not None:
            chunk.ticket.begin(time.perf_counter())
        self._begin()
        try:
            self._fill(chunk)
        except StorageError as failure:
            error = failure
        self._end(0 if error else chunk.need)
        chunk.ticket.finish(error)

    def _tell(self, name: str, on_done: Callable[[Ticket], None] | None, ticket: Ticket) -> None:
        """A request is served; one of which nothing was read is no work of the disk."""
        if self._on_span is not None and ticket.began is not None:
            self._on_span("disk", name, ticket.began, time.perf_counter())
        if on_done is not None:
            on_done(ticket)

    def _begin(self) -> None:
        with self._lock:
            if self._in_flight == 0:
                self._busy_since = time.perf_counter()
            self._in_flight += 1

    def _end(self, nbytes: int) -> None:
        with self._lock:
            self.bytes_read += nbytes
            self._in_flight -= 1
            if self._in_flight == 0:
                self._busy += time.perf_counter() - self._busy_since

    def _fill(self, chunk: _Chunk) -> None:
        """Reads until the chunk's `need` bytes are there, however the system cuts the reads. Raises StorageError."""
        done = 0
        while done < chunk.need:
            source = self._source(chunk.file)
            try:
                reached = _read_on(source, chunk, done)
            except OSError as error:
                if not (source.direct and error.errno == errno.EINVAL):
                    raise _unreadable(chunk.file, chunk.offset + done, error) from error
                self._give_up_direct(chunk.file)
                continue
            if reached <= done:
                raise _cut_short(chunk, done)
            done = reached

    def _source(self, file: str) -> _Source:
        with self._lock:
            if file not in self._sources:
                self._sources[file] = self._open(file, self.profile.direct and O_DIRECT != 0)
            return self._sources[file]

    def _give_up_direct(self, file: str) -> None:
        """Reads `file` through the page cache from now on; others may still be reading by the old descriptor."""
        with self._lock:
            if self._sources[file].direct:
                self._sources[file] = self._open(file, direct=False)

    def _open(self, file: str, direct: bool) -> _Source:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | (O_DIRECT if direct else 0))
        except OSError as error:
            if direct and error.errno == errno.EINVAL:
                return self._open(file, direct=False)
            raise _unreadable(file, 0, error) from error
        self._descriptors.append(descriptor)
        return _Source(descriptor, direct)


def _error_of_making(made: Made, chunk: _Chunk) -> WindlassError | None:
    """Has a chunk made; returns what went wrong."""
    try:
        made.fill(chunk.file, chunk.offset, chunk.target[: chunk.need])
    except WindlassError as error:
        return error
    return None


def _read_on(source: _Source, chunk: _Chunk, done: int) -> int:
    """Reads on from `done`; returns the bytes that are there then, `done` or fewer at the end of the file."""
    if source.direct:
        # A direct read begins at a block, so after a short one the broken block is read again.
        start = done - done % BLOCK
        return start + os.preadv(source.descriptor, [chunk.target[start:]], chunk.offset + start)
    got = os.preadv(source.descriptor, [chunk.target[done : chunk.need]], chunk.offset + done)
    if sys.platform == "linux":
        os.posix_fadvise(source.descriptor, chunk.offset + done, got, os.POSIX_FADV_DONTNEED)
    return done + got


_GONE = "it was there when the model was opened: put it back where it was, or mount its disk, and ask again"
# What to do about a file that cannot be read; for any other reason the disk is to blame.
_STEPS = {
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.ESTALE: _GONE,
    errno.EACCES: "allow it to be read (chmod u+r the file, u+x its folder) and ask again",
    errno.EPERM: "allow it to be read (chmod u+r the file, u+x its folder) and ask again",
    errno.EMFILE: "too many files are open in this process; raise the limit (ulimit -n) and ask again",
}


def _unreadable(file: str, offset: int, error: OSError) -> StorageError:
    step = _STEPS.get(error.errno or 0, "check the disk's health (dmesg), or copy the file to another disk")
    return StorageError(f"{file} cannot be read at byte {offset:,}: {error.strerror}; {step}")


def _cut_short(chunk: _Chunk, done: int) -> StorageError:
    return StorageError(
        f"{chunk.file} ends at byte {chunk.offset + done:,}, but bytes to {chunk.offset + chunk.need:,} are needed: "
        f"it was cut short after its header was read; fetch the file again and start over"
    )
