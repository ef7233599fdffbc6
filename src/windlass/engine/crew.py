"""Two micro-batches of a layer on their way at once: while one waits for the host, the other computes.

transformers' forward computes a micro-batch from beginning to end, so each needs a thread of its own. They take turns:
only one issues work at a time, and it hands over where it would wait. They begin in order, and store their keys and
values before they first wait: the later rows of a sequence find the earlier ones.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch

from windlass.engine.trace import Paused

Result = TypeVar("Result")

TWO = 2


class Crew:
    """Starts its threads with the first work that needs them. `wait_seconds` counts when nobody had the turn."""

    def __init__(self) -> None:
        self.wait_seconds = 0.0
        # Entered by a micro-batch that waits, so that a timeline shows it.
        self.paused: Paused = nullcontext
        self._turn = threading.Lock()
        self._begun = 0
        self._held = self._taken = 0.0
        self._begins = threading.Condition()
        self._threads = ThreadPoolExecutor(max_workers=TWO, thread_name_prefix="windlass-micro-batch")
        self._together = False

    def run(self, work: Sequence[Callable[[], Result]], together: bool) -> list[Result]:
        """The results of all, in order; `together` says that they may wait for the host. Raises what one raised."""
        if not together or len(work) == 1:
            return [each() for each in work]
        self._together, self._begun, self._held = True, 0, 0.0
        start = time.perf_counter()
        try:
            begun = [self._threads.submit(self._in_turn, place, each) for place, each in enumerate(work)]
            try:
                return [each.result() for each in begun]
            finally:
                # After a failure or Ctrl-C nothing new begins, and what is under way ends before the layer is left.
                # From the last on: one that begins must not wait for one before it that never will.
                for each in reversed(begun):
                    each.cancel()
                for each in begun:
                    if not each.cancelled():
                        each.exception()
        finally:
            self._together = False
            self.wait_seconds += max(0.0, time.perf_counter() - start - self._held)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Entered by a micro-batch while it waits: the other has its turn."""
        with self.paused():
            if self._together:
                self._hand_over()
                try:
                    yield
                finally:
                    self._take()
                return
            start = time.perf_counter()
            try:
                yield
            finally:
                self.wait_seconds += time.perf_counter() - start

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _in_turn(self, place: int, work: Callable[[], Result]) -> Result:
        with self._begins:
            self._begins.wait_for(lambda: self._begun == place)
            self._take()
            self._begun += 1
            self._begins.notify_all()
        try:
            with torch.inference_mode():
                return work()
        finally:
            self._hand_over()

    def _take(self) -> None:
        self._turn.acquire()
        self._taken = time.perf_counter()

    def _hand_over(self) -> None:
        self._held += time.perf_counter() - self._taken
        self._turn.release()
