"""The pretended link: copies in order, urgent ones between two chunks, never faster than its rate."""

import threading
from collections.abc import Iterator

import pytest
import torch

from windlass.facts.simulated_device import SimulatedDevice
from windlass.memory.simulated_accelerator import CHUNK_BYTES, SimulatedAccelerator


class Gate:
    """A mark that others wait for until it is opened; it notes what could be seen when it was passed."""

    def __init__(self, opened: bool, watched: torch.Tensor) -> None:
        self._opened, self._watched = threading.Event(), watched
        self.seen: list[int] = []
        if opened:
            self._opened.set()

    def open(self) -> None:
        self._opened.set()

    def wait(self) -> None:
        self._opened.wait()
        self.seen.append(int(self._watched.count_nonzero()))


@pytest.fixture
def accelerator() -> Iterator[SimulatedAccelerator]:
    made = SimulatedAccelerator(SimulatedDevice(rate=1e12, latency=0.0, poison=False))
    yield made
    made.close()


def test_an_urgent_copy_goes_between_the_chunks_of_one_that_has_begun(accelerator: SimulatedAccelerator) -> None:
    weights, place = torch.ones(3 * CHUNK_BYTES, dtype=torch.uint8), torch.zeros(3 * CHUNK_BYTES, dtype=torch.uint8)
    result, there = torch.ones(2, 3), torch.zeros(2, 3)
    held = Gate(opened=False, watched=place)
    passed = Gate(opened=True, watched=place)
    whole = accelerator.upload(weights, place, [held])
    urgent = accelerator.upload(result, there, [passed], urgent=True)
    held.open()
    urgent.wait()
    whole.wait()
    assert passed.seen[0] < 3 * CHUNK_BYTES, "it came before the others had all arrived"
    assert torch.equal(place, weights) and torch.equal(there, result)
    assert accelerator.copied_bytes() == (weights.nbytes + result.nbytes, 0)


def test_copies_that_are_not_urgent_keep_their_order(accelerator: SimulatedAccelerator) -> None:
    first, second = torch.ones(CHUNK_BYTES, dtype=torch.uint8), torch.zeros(CHUNK_BYTES, dtype=torch.uint8)
    passed = Gate(opened=True, watched=second)
    accelerator.upload(first, second)
    accelerator.upload(first[:8], second[:8], [passed]).wait()
    assert passed.seen == [CHUNK_BYTES]


def test_the_link_is_busy_for_as_long_as_its_rate_says() -> None:
    accelerator = SimulatedAccelerator(SimulatedDevice(rate=1e9, latency=0.0, poison=False))
    source = torch.ones(2 * CHUNK_BYTES, dtype=torch.uint8)
    accelerator.upload(source, torch.empty_like(source)).wait()
    assert accelerator.busy_seconds()[0] == pytest.approx(source.nbytes / 1e9)
    accelerator.close()
