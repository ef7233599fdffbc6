"""The host's own order of work beside a device: one thread that does what is handed to it, one thing after the other.

What a layer stores on the host is there before the same layer's attention reads it, simply because it was handed over
first.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from windlass.facts.time_span import OnSpan

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class HostTask(Generic[Result]):
    """Work handed to the lane."""

    future: Future[Result]

    def wait(self) -> None:
        """See Mark. Raises what the work raised."""
        self.future.result()

    def result(self) -> Result:
        """Waits, and gives what the work returned."""
        return self.future.result()


class HostLane:
    """Starts with the first work. `busy_seconds` is the time spent working.

    Each piece of work is held up at random for at most `delay` seconds, drawn from `seed`: for tests of what waits.
    """

    def __init__(self, delay: float = 0.0, seed: int = 0) -> None:
        self.busy_seconds = 0.0
        self._on_span: OnSpan | None = None
        self._delay, self._draw = delay, random.Random(seed)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="windlass-host-lane")

    def listen(self, on_span: OnSpan) -> None:
        """Tells of every piece of work from now on."""
        self._on_span = on_span

    def submit(self, work: Callable[[], Result], name: str = "work") -> HostTask[Result]:
        """Hands work over; it begins when everything handed over before has ended. `name` is for timelines."""
        return HostTask(self._thread.submit(self._do, work, name))

    def close(self) -> None:
        """Drops what has not begun and ends the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _do(self, work: Callable[[], Result], name: str) -> Result:
        if self._delay:
            time.sleep(self._draw.uniform(0, self._delay))
        start = time.perf_counter()
        with torch.inference_mode():
            result = work()
        end = time.perf_counter()
        self.busy_seconds += end - start
        if self._on_span is not None:
            self._on_span("host", name, start, end)
        return result
