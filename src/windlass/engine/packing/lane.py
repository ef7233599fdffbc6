"""Reads, packs and writes the pieces of a checkpoint at once: memory for a few of them is all it takes.

A piece waits for a free buffer, then its bytes are asked for; a thread of the crew takes it when they have come, packs
it, and writes it where its place is. So the disk reads ahead while all threads pack, and what they write the system
takes to disk meanwhile. What is finished without a gap is flushed now and then, and only then noted as durable.
"""

import os
import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from windlass.engine.packing.journal import Durable, note
from windlass.engine.packing.source import DISK, check_copied, packed_piece, raw_bytes, read_of, room_for
from windlass.errors import StorageError
from windlass.facts.packed_files import OutputFile, PackPiece
from windlass.facts.packing import Packing
from windlass.memory.arena import Arena
from windlass.memory.disk import DiskReader
from windlass.memory.ticket import Ticket

PIECES_AHEAD = 4
"""Buffers beyond one for each thread."""
PIECES_BETWEEN_FLUSHES = 32

Importance = Callable[[PackPiece], torch.Tensor | None]
"""The importance of the columns of a piece, float32 (K), or None."""


def unweighted(piece: PackPiece) -> torch.Tensor | None:
    """All columns count alike."""
    return None


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one piece: the sums of `Packed`, and the seconds that a thread packed."""

    error: float
    power: float
    seconds: float


class PackLane:
    """Packs the pieces of `files` into `folder`, from `durable` on, by `threads` threads."""

    def __init__(
        self,
        folder: Path,
        files: Sequence[OutputFile],
        packing: Packing,
        threads: int,
        importance: Importance,
    ) -> None:
        self._folder, self._files, self._packing = folder, files, packing
        self._importance = importance
        self.threads = threads
        self.pack_seconds = 0.0

    def run(self, pieces: Sequence[PackPiece], durable: Durable, on_piece: Callable[[PackPiece], None]) -> Durable:
        """Packs all pieces that are not durable; returns the sums over all of them. Raises StorageError."""
        left = pieces[durable.pieces :]
        if not left:
            return durable
        size = max(map(room_for, left))
        count = min(self.threads + PIECES_AHEAD, len(left))
        arena, reader = Arena(size * count), DiskReader(DISK)
        free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(count):
            free.put(slot * size)
        try:
            with self._targets() as targets, ThreadPoolExecutor(self.threads) as crew, ThreadPoolExecutor(1) as flusher:
                keeper = _Keeper(self._folder, targets, flusher, durable)
                try:
                    for piece in left:
                        at = free.get()
                        ticket = reader.submit([read_of(piece, arena, at)])
                        keeper.expect(piece, crew.submit(self._move, piece, arena, at, ticket, targets, free))
                        self._tell(keeper.finished(wait=False), on_piece)
                    self._tell(keeper.finished(wait=True), on_piece)
                    return keeper.close()
                finally:
                    crew.shutdown(wait=True, cancel_futures=True)
        finally:
            reader.close()
            arena.close()

    def _tell(self, finished: Iterator[tuple[PackPiece, Moved]], on_piece: Callable[[PackPiece], None]) -> None:
        for piece, moved in finished:
            self.pack_seconds += moved.seconds
            on_piece(piece)

    def _move(
        self,
        piece: PackPiece,
        arena: Arena,
        at: int,
        ticket: Ticket,
        targets: Mapping[str, int],
        free: "queue.SimpleQueue[int]",
    ) -> Moved:
        """One thread's work on one piece."""
        try:
            ticket.wait()
            raw = raw_bytes(piece, arena, at)
            if not piece.rows:
                check_copied(piece, raw)
                _write(targets[piece.target], raw, piece, self._folder)
                return Moved(0.0, 0.0, 0.0)
            began = time.perf_counter()
            done = packed_piece(piece, raw, self._packing, self._importance(piece))
            seconds = time.perf_counter() - began
            _write(targets[piece.target], done.blocks, piece, self._folder)
            return Moved(done.error, done.power, seconds)
        finally:
            free.put(at)

    @contextmanager
    def _targets(self) -> Iterator[dict[str, int]]:
        """Descriptors of the files to write, which are there in full length, headers and all."""
        found: dict[str, int] = {}
        try:
            for file in self._files:
                found[file.name] = _open(self._folder / file.name, file)
            yield found
        finally:
            for descriptor in found.values():
                os.close(descriptor)


class _Keeper:
    """Takes the finished pieces in their order, and has them flushed and noted by a thread of its own."""

    def __init__(self, folder: Path, targets: Mapping[str, int], flusher: ThreadPoolExecutor, durable: Durable) -> None:
        self._folder, self._targets, self._flusher = folder, targets, flusher
        self._pending: deque[tuple[PackPiece, Future[Moved]]] = deque()
        self._sum, self._noted = durable, durable.pieces
        self._dirty: set[str] = set()
        self._flushing: Future[None] | None = None

    def expect(self, piece: PackPiece, future: "Future[Moved]") -> None:
        """The next piece in order is on its way."""
        self._pending.append((piece, future))

    def finished(self, wait: bool) -> Iterator[tuple[PackPiece, Moved]]:
        """Pieces that are done, in order; with `wait`, all that are expected."""
        while self._pending and (wait or self._pending[0][1].done()):
            piece, future = self._pending.popleft()
            moved = future.result()
            self._sum = Durable(self._sum.pieces + 1, self._sum.error + moved.error, self._sum.power + moved.power)
            self._dirty.add(piece.target)
            if self._sum.pieces - self._noted >= PIECES_BETWEEN_FLUSHES:
                self._flush()
            yield piece, moved

    def close(self) -> Durable:
        """Everything is on disk when this returns."""
        self._flush()
        assert self._flushing is not None
        self._flushing.result()
        return self._sum

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.result()
        self._noted = self._sum.pieces
        self._flushing = self._flusher.submit(self._make_durable, tuple(self._dirty), self._sum)
        self._dirty.clear()

    def _make_durable(self, names: Sequence[str], durable: Durable) -> None:
        try:
            for name in names:
                os.fsync(self._targets[name])
                if sys.platform == "linux":
                    # What is on disk need not stay in the page cache, where it would push out what others use.
                    os.posix_fadvise(self._targets[name], 0, 0, os.POSIX_FADV_DONTNEED)
            note(self._folder, durable)
        except OSError as error:
            raise _unwritable(self._folder, error) from error


def _open(path: Path, file: OutputFile) -> int:
    """A file of full length with its header. Raises StorageError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(descriptor).st_size != file.nbytes:
            os.pwrite(descriptor, file.header, 0)
            os.truncate(descriptor, file.nbytes)
            os.fsync(descriptor)
        return descriptor
    except OSError as error:
        raise _unwritable(path, error) from error


def _write(descriptor: int, data: torch.Tensor, piece: PackPiece, folder: Path) -> None:
    """Raises StorageError."""
    view, at = data.view(-1).numpy().data, piece.target_offset
    assert len(view) == piece.target_nbytes, f"{len(view)} bytes of {piece.tensor} for {piece.target_nbytes}"
    try:
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written
    except OSError as error:
        raise _unwritable(folder / piece.target, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} cannot be written: {error.strerror}; free some space or mend the disk, then give the same command "
        "again: it goes on where it was"
    )
