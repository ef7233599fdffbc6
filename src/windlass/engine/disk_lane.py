"""The disk lane: reads the slices of every pass in order, for ever, as far ahead as the ring has credits.

A pass ends where the next one begins, so the lane simply goes round; between two calls of the engine the ring holds
the first slices of the pass to come.
"""

import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from windlass.errors import StorageError
from windlass.facts.piece import Piece
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import piece_reads
from windlass.memory.disk import DiskReader
from windlass.memory.ring import Ring, RingClosed
from windlass.memory.ticket import ReaderClosed, Ticket


@dataclass(frozen=True, slots=True)
class Delivery:
    """A slice on its way: its place in the ring, and the ticket that is served when all its bytes are there."""

    part: int
    arena: Arena
    offset: int
    ticket: Ticket


class DiskLane:
    """Delivers `pieces[part]` in order of `part`, round and round; parts that are None need nothing from disk.

    `names[part]` is what a part is called.
    """

    def __init__(
        self, pieces: Sequence[Piece | None], ring_bytes: int, reader: DiskReader, names: Sequence[str]
    ) -> None:
        self.wait_seconds = 0.0
        self._names = [f"read {name}" for name in names]
        self._pieces = [(part, piece) for part, piece in enumerate(pieces) if piece is not None]
        self._reader = reader
        self.arena = Arena(ring_bytes)
        self.arena.touch()
        self._ring = Ring(ring_bytes)
        self._deliveries: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._go_round, name="windlass-disk-lane", daemon=True)
        self._thread.start()

    def next(self, part: int) -> Delivery:
        """The next delivery, which must be of slice `part`; waits for its bytes. Raises StorageError."""
        start = time.perf_counter()
        delivery = self._deliveries.get()
        if delivery is None:
            raise RingClosed
        assert delivery.part == part, f"slice {part} was asked for, slice {delivery.part} is next"
        delivery.ticket.wait()
        self.wait_seconds += time.perf_counter() - start
        return delivery

    def give_back(self, delivery: Delivery) -> None:
        """Returns a delivery's credits."""
        self._ring.release(delivery.offset)

    def order(self) -> Iterator[int]:
        """The parts in the order they are delivered, without end."""
        return itertools.cycle(part for part, _ in self._pieces)

    def nbytes(self, part: int) -> int:
        """Bytes that slice `part` takes in the ring."""
        return dict(self._pieces)[part].nbytes

    def stop(self) -> None:
        """Stops reading ahead; whoever waits for a delivery that will not come gets RingClosed."""
        self._ring.close()
        self._thread.join()
        self._deliveries.put(None)

    def close(self) -> None:
        """Stops reading ahead and frees the ring. Reads in flight end first: they write into it."""
        self.stop()
        while (delivery := self._deliveries.get()) is not None:
            with suppress(StorageError, ReaderClosed):
                delivery.ticket.wait()
        self.arena.close()

    def _go_round(self) -> None:
        while True:
            for part, piece in self._pieces:
                try:
                    offset = self._ring.acquire(piece.nbytes)
                except RingClosed:
                    return
                ticket = self._reader.submit(piece_reads(piece, self.arena, offset), name=self._names[part])
                self._deliveries.put(Delivery(part, self.arena, offset, ticket))
