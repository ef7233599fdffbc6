"""A ring lends contiguous bytes, waits when there are none, and takes them back in the order they were lent."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from windlass.memory.ring import Ring, RingClosed

# A test that hangs fails after so many seconds; no other test depends on it.
PATIENCE = 300


class Model(RuleBasedStateMachine):
    """Acquires only what must fit, releases in any order; runs never overlap and all the room comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring(64, align=4)
        self.lent: dict[int, int] = {}
        self.turns = random.Random(0)

    @rule(nbytes=st.integers(1, 64))
    def acquire(self, nbytes: int) -> None:
        size = nbytes + -nbytes % 4
        # A run of this size may also have to skip nearly as much at the end of the ring.
        if self.ring.used and self.ring.used + 2 * size > 64:
            return
        offset = self.ring.acquire(nbytes)
        assert offset % 4 == 0 and offset + size <= 64
        assert all(offset + size <= other or other + length <= offset for other, length in self.lent.items())
        self.lent[offset] = size

    @precondition(lambda self: self.lent)
    @rule(pick=st.integers(0, 63))
    def release(self, pick: int) -> None:
        offset = sorted(self.lent)[pick % len(self.lent)]
        del self.lent[offset]
        self.ring.release(offset)

    @invariant()
    def holds_together(self) -> None:
        self.ring.check()
        assert sum(self.lent.values()) <= self.ring.used
        assert self.lent or self.ring.used == 0


TestModel = Model.TestCase


def test_runs_follow_each_other_and_skip_a_tail_that_is_too_short() -> None:
    ring = Ring(100, align=10)
    assert [ring.acquire(40), ring.acquire(31)] == [0, 40]
    ring.release(0)
    assert ring.acquire(30) == 0
    assert ring.used == 90
    ring.check()


def test_room_comes_back_in_the_order_it_was_lent() -> None:
    ring = Ring(100, align=10)
    first, second, third = ring.acquire(30), ring.acquire(30), ring.acquire(30)
    ring.release(second)
    assert ring.used == 90
    ring.release(first)
    assert ring.used == 30
    ring.release(third)
    assert ring.used == 0


def test_an_empty_ring_fits_a_run_of_its_whole_size() -> None:
    ring = Ring(100, align=10)
    ring.release(ring.acquire(60))
    assert ring.acquire(100) == 0


def test_a_run_that_can_never_fit_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="a run of 101 bytes cannot fit a ring of 100"):
        Ring(100, align=10).acquire(101)


def test_what_is_not_lent_cannot_be_released() -> None:
    with pytest.raises(AssertionError, match="no run is lent at offset 10"):
        Ring(100, align=10).release(10)


def test_a_waiting_acquire_goes_on_when_room_comes_back() -> None:
    ring = Ring(100, align=10)
    first = ring.acquire(80)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ring.acquire, 50)
        ring.release(first)
        assert waiting.result(timeout=PATIENCE) == 0


def test_closing_ends_every_wait() -> None:
    ring = Ring(100, align=10)
    ring.acquire(80)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ring.acquire, 50) for _ in range(3)]
        ring.close()
        assert all(isinstance(wait.exception(timeout=PATIENCE), RingClosed) for wait in waiting)
    with pytest.raises(RingClosed):
        ring.acquire(10)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 120))
def test_a_loader_and_a_user_never_lock_each_other_out(sizes: list[int], capacity: int) -> None:
    ring = Ring(capacity, align=1)
    lent: list[int] = []
    ready = threading.Semaphore(0)

    def load() -> None:
        for size in sizes:
            lent.append(ring.acquire(size))
            ready.release()

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        for number in range(len(sizes)):
            assert ready.acquire(timeout=PATIENCE)
            ring.release(lent[number])
            ring.check()
        loading.result(timeout=PATIENCE)
    assert ring.used == 0
