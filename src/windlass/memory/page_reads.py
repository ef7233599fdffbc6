"""Runs of pages on their way from a page file, in the order of a pass, as far ahead as there are free buffers.

A buffer is a credit: taking a run and giving its buffer back is what lets the next reads begin. Whoever asks for a run
that was not foreseen gets it read at once.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from windlass.memory.arena import Arena
from windlass.memory.page_file import PageFile


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring pages, first .. first + count, and the ranges of the file that hold them: `(offset, bytes, at)`.

    `at` is where a range goes in a buffer; `turn` says when in the pass the run is wanted.
    """

    turn: Hashable
    first: int
    count: int
    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A run in the buffer at byte `offset` of the arena, there once the futures are done."""

    run: Run
    offset: int
    futures: tuple[Future[None], ...]

    def wait(self) -> None:
        """Raises StorageError."""
        for future in self.futures:
            future.result()


class PageReads:
    """`buffers` buffers of `nbytes` bytes each, for one thread that takes runs."""

    def __init__(self, file: PageFile, nbytes: int, buffers: int) -> None:
        self.file, self.nbytes = file, nbytes
        self.arena = Arena(nbytes * buffers)
        self._free = [number * nbytes for number in range(buffers)]
        self._order: deque[Run] = deque()
        self._coming: deque[Arrival] = deque()

    def begin(self, order: Iterable[Run]) -> None:
        """What a pass will ask for, in order. What an earlier pass did not take is dropped."""
        while self._coming:
            self.give_back(self._coming.popleft())
        self._order = deque(order)
        self._advance()

    def take(self, turn: Hashable, wanted: Sequence[Run]) -> Iterable[Arrival]:
        """The runs of a turn, each to be given back before the next is asked for. Foreseen ones come first."""
        left = {(run.first, run.count): run for run in wanted}
        while self._coming and self._coming[0].run.turn == turn:
            arrival = self._coming.popleft()
            if left.pop((arrival.run.first, arrival.run.count), None) is not None:
                arrival.wait()
                yield arrival
            else:
                self.give_back(arrival)
        for run in left.values():
            yield self._now(run)

    def give_back(self, arrival: Arrival) -> None:
        """Returns a buffer's credit."""
        arrival.wait()
        self._free.append(arrival.offset)
        self._advance()

    def close(self) -> None:
        """Waits for what is in flight and frees the buffers."""
        self._order.clear()
        self.begin(())
        self.arena.close()

    def _now(self, run: Run) -> Arrival:
        while not self._free:
            # Everything is held by runs foreseen for later: the last of them gives way and is read again then.
            late = self._coming.pop()
            late.wait()
            self._order.appendleft(late.run)
            self._free.append(late.offset)
        arrival = self._start(run)
        arrival.wait()
        return arrival

    def _advance(self) -> None:
        while self._free and self._order:
            self._coming.append(self._start(self._order.popleft()))

    def _start(self, run: Run) -> Arrival:
        offset = self._free.pop()
        futures = [self.file.read(start, self.arena.view(offset + at, nbytes)) for start, nbytes, at in run.ranges]
        return Arrival(run, offset, tuple(futures))
