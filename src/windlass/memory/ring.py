"""A circular buffer of credits: free bytes are what lets a reader run ahead, and no more than that.

Pieces of a model differ in size, so credits are bytes and not slots: the ring is as full as it can be, and its
capacity is the whole memory bill of streaming.
"""

import threading
from collections import deque
from dataclasses import dataclass


class RingClosed(Exception):
    """The ring was closed while somebody waited for room; internal, it ends a loader and never reaches a user."""


@dataclass(slots=True)
class _Run:
    """Positions `begin` to `end`, lent or, once `free`, waiting for older runs; a skipped tail lies before `begin`."""

    begin: int
    end: int
    free: bool = False


class Ring:
    """`capacity` bytes (a multiple of `align`) lent as contiguous runs; room comes back in the order it was lent.

    Positions only grow; a position modulo the capacity is an offset. `tail <= head <= tail + capacity` always.
    """

    def __init__(self, capacity: int, align: int = 4096) -> None:
        assert capacity > 0 and capacity % align == 0, f"{capacity} bytes are not a multiple of {align}"
        self.capacity, self.align = capacity, align
        self._head = self._tail = 0
        self._runs: deque[_Run] = deque()
        self._lent: dict[int, _Run] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that cannot be lent now: lent ones, freed ones behind an older loan, skipped tails."""
        return self._head - self._tail

    def acquire(self, nbytes: int) -> int:
        """The offset of `nbytes` contiguous bytes; waits until they are free. Raises RingClosed."""
        size = nbytes + -nbytes % self.align
        assert 0 < size <= self.capacity, f"a run of {nbytes} bytes cannot fit a ring of {self.capacity}"
        # One waiter at a time: a small run must not slip past a big one for ever.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._closed or self._room(size))
            if self._closed:
                raise RingClosed
            return self._lend(size)

    def release(self, offset: int) -> None:
        """Gives back the run at `offset`, in any order; its bytes are free once all older runs are given back."""
        with self._changed:
            assert offset in self._lent, f"no run is lent at offset {offset}"
            self._lent.pop(offset).free = True
            while self._runs and self._runs[0].free:
                self._tail = self._runs.popleft().end
            if not self._runs:
                # An empty ring starts over, so that even a run of the whole capacity fits.
                self._head = self._tail = 0
            self._changed.notify_all()

    def close(self) -> None:
        """Ends every wait, now and later, with RingClosed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check(self) -> None:
        """Asserts that the runs follow each other within the capacity and that every loan is one of them."""
        with self._changed:
            position = self._tail
            for run in self._runs:
                begin, end = run.begin % self.capacity, run.begin % self.capacity + run.end - run.begin
                assert position <= run.begin and end <= self.capacity, f"bytes {begin} to {end} of {self.capacity}"
                assert run.free or self._lent[begin] is run, f"the loan at {begin} is not known"
                position = run.end
            assert position == self._head and self.used <= self.capacity, f"{self.used} of {self.capacity} bytes used"
            assert len(self._lent) == sum(not run.free for run in self._runs), "a loan is not in the ring"

    def _skip(self, size: int) -> int:
        """Bytes to skip so that `size` bytes do not wrap around the end."""
        left = self.capacity - self._head % self.capacity
        return left if left < size else 0

    def _room(self, size: int) -> bool:
        return self._head + self._skip(size) + size <= self._tail + self.capacity

    def _lend(self, size: int) -> int:
        begin = self._head + self._skip(size)
        self._head = begin + size
        run = _Run(begin, self._head)
        self._runs.append(run)
        self._lent[begin % self.capacity] = run
        return begin % self.capacity
