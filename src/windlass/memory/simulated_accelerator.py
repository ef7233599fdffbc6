"""A pretend accelerator in host memory: the same orders of work as on a real one, with a link as slow as is asked.

Computation is the host's own and happens when it is called; copies run in threads of their own, in order, no faster
than the link. Whoever forgets to wait for one finds NaN, not the right bytes by luck.
"""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from windlass.errors import DeviceError
from windlass.facts.simulated_device import SimulatedDevice
from windlass.facts.time_span import OnSpan
from windlass.memory.accelerator import Mark
from windlass.memory.arena import Arena
from windlass.memory.host_clock import timed_on_host
from windlass.units import MIB, format_size

# All bits set is a NaN in every floating format there is.
POISON = 0xFF
# What an urgent copy waits for at most.
CHUNK_BYTES = 4 * MIB
# A copy that was held up for longer than this had to wait for something else than the link.
HELD_SECONDS = 100e-6


class SimulatedMark:
    """A point of a lane."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self.error: Exception | None = None

    def wait(self) -> None:
        """See Mark."""
        self._reached.wait()
        if self.error is not None:
            raise self.error

    def reach(self, error: Exception | None = None) -> None:
        """The lane has come here, or failed on the way."""
        self.error = error
        self._reached.set()


class SimulatedMemory:
    """An arena that is poisoned where nothing has been written."""

    def __init__(self, nbytes: int, poison: bool) -> None:
        self.nbytes, self._poison = nbytes, poison
        self._arena = Arena(nbytes)
        self._bytes = self._arena.tensor(0, torch.uint8, (nbytes,))
        self.poison(0, nbytes)

    def tensor(self, offset: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """See DeviceMemory."""
        return self._arena.tensor(offset, dtype, shape)

    def poison(self, offset: int, nbytes: int) -> None:
        """See DeviceMemory."""
        if self._poison:
            self._bytes[offset : offset + nbytes].fill_(POISON)

    def close(self) -> None:
        """See DeviceMemory."""
        del self._bytes
        self._arena.close()


@dataclass(frozen=True, slots=True)
class _Copy:
    source: torch.Tensor
    target: torch.Tensor
    after: tuple[Mark, ...]
    done: SimulatedMark
    asked: float
    name: str

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """What crosses the link without a break. Only runs of bytes, as weights are, are ever worth cutting."""
        if self.source.ndim != 1:
            return iter([(self.source, self.target)])
        step = max(1, CHUNK_BYTES // self.source.itemsize)
        return zip(self.source.split(step), self.target.split(step), strict=True)


class _Lane:
    """One direction of the link, "upload" or "download": copies in order, but urgent ones before the next chunk.

    `busy` counts what the link takes for what it carries, by its own rate.
    """

    def __init__(self, name: str, device: SimulatedDevice, draw: random.Random) -> None:
        self.busy, self.nbytes = 0.0, 0
        self.on_span: OnSpan | None = None
        self._name = name
        self._device, self._draw = device, draw
        self._free_at = 0.0
        self._copies: deque[_Copy | None] = deque()
        self._urgent: deque[_Copy] = deque()
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"windlass-sim-{name}", daemon=True)
        self._thread.start()

    def put(self, copy: _Copy, urgent: bool = False) -> Mark:
        with self._arrived:
            (self._urgent if urgent else self._copies).append(copy)
            self._arrived.notify()
        return copy.done

    def close(self) -> None:
        with self._arrived:
            self._copies.append(None)
            self._arrived.notify()
        self._thread.join()

    @torch.inference_mode()
    def _run(self) -> None:
        while (copy := self._next()) is not None:
            self._carry(copy)

    def _next(self) -> _Copy | None:
        with self._arrived:
            self._arrived.wait_for(lambda: self._urgent or self._copies)
            return self._urgent.popleft() if self._urgent else self._copies.popleft()

    def _carry(self, copy: _Copy) -> None:
        begin = time.perf_counter()
        try:
            for mark in copy.after:
                mark.wait()
            now = time.perf_counter()
            self._carry_chunks(copy, now if now - begin > HELD_SECONDS else copy.asked)
        except DeviceError as error:
            copy.done.reach(error)
        else:
            copy.done.reach()

    def _carry_chunks(self, copy: _Copy, asked: float) -> None:
        if self._device.delay:
            time.sleep(self._draw.uniform(0, self._device.delay))
        latency, began, ended = self._device.latency, 0.0, 0.0
        for source, target in copy.chunks():
            target.copy_(source)
            begin, ended = self._pass_time(asked, latency + source.nbytes / self._device.rate)
            began = began or begin
            self.nbytes += source.nbytes
            asked, latency = 0.0, 0.0
            while copy.source.ndim == 1 and self._urgent:
                self._tell(copy, began, ended)
                began = 0.0
                self._carry(self._urgent.popleft())
        self._tell(copy, began, ended)

    def _pass_time(self, asked: float, seconds: float) -> tuple[float, float]:
        """The link carries for `seconds`, from when it is free -> when; that a sleep was too long is not its fault."""
        begin = max(asked, self._free_at)
        self._free_at = begin + seconds
        self.busy += seconds
        time.sleep(max(0.0, self._free_at - time.perf_counter()))
        return begin, self._free_at

    def _tell(self, copy: _Copy, began: float, ended: float) -> None:
        if self.on_span is not None and began:
            self.on_span(self._name, copy.name, began, ended)


class SimulatedAccelerator:
    """`capacity` bytes behind the link that `simulated` describes. `device` is the CPU, which does the computing."""

    device = torch.device("cpu")

    def __init__(self, simulated: SimulatedDevice, capacity: int | None = None) -> None:
        self.simulated = simulated
        self.capacity = capacity if capacity is not None else math.inf
        self._held = 0
        draw = random.Random(simulated.seed)
        self._on_span: OnSpan | None = None
        self._up = _Lane("upload", simulated, random.Random(draw.random()))
        self._down = _Lane("download", simulated, random.Random(draw.random()))

    def memory(self, nbytes: int) -> SimulatedMemory:
        """See Accelerator. What is given out is not counted back: an engine takes its blocks once."""
        if self._held + nbytes > self.capacity:
            raise DeviceError(
                f"the simulated device has {format_size(self.capacity - self._held)} left of "
                f"{format_size(self.capacity)}, {format_size(nbytes)} are needed; raise --gpu-memory"
            )
        self._held += nbytes
        return SimulatedMemory(nbytes, self.simulated.poison)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """See Accelerator."""
        made = torch.empty(tuple(shape), dtype=dtype)
        if self.simulated.poison:
            made.view(torch.uint8).fill_(POISON)
        return made

    def host_empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """See Accelerator. Poisoned too: the host must wait for what comes from the device."""
        return self.empty(shape, dtype)

    def pin(self, arena: Arena) -> None:
        """Nothing to do in host memory."""

    def unpin(self, arena: Arena) -> None:
        """Nothing to do in host memory."""

    def listen(self, on_span: OnSpan) -> None:
        """See Accelerator."""
        self._on_span = self._up.on_span = self._down.on_span = on_span

    def timed(self, name: str) -> AbstractContextManager[None]:
        """See Accelerator."""
        return nullcontext() if self._on_span is None else timed_on_host(self._on_span, name)

    def upload(
        self,
        source: torch.Tensor,
        target: torch.Tensor,
        after: Sequence[Mark] = (),
        name: str = "copy",
        urgent: bool = False,
    ) -> Mark:
        """See Accelerator."""
        return self._up.put(_copy(source, target, after, name), urgent)

    def download(
        self, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark] = (), name: str = "copy"
    ) -> Mark:
        """See Accelerator."""
        return self._down.put(_copy(source, target, after, name))

    def mark(self) -> Mark:
        """Computation has ended when its call returns."""
        reached = SimulatedMark()
        reached.reach()
        return reached

    def compute_after(self, mark: Mark) -> None:
        """See Accelerator."""
        mark.wait()

    def busy_seconds(self) -> tuple[float, float]:
        """See Accelerator."""
        return self._up.busy, self._down.busy

    def copied_bytes(self) -> tuple[int, int]:
        """See Accelerator."""
        return self._up.nbytes, self._down.nbytes

    def drain(self) -> None:
        """See Accelerator."""
        for lane in (self._up, self._down):
            nothing = torch.empty(0)
            lane.put(_copy(nothing, nothing, (), "nothing")).wait()

    def close(self) -> None:
        """Ends both lanes."""
        self._up.close()
        self._down.close()


def _copy(source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark], name: str) -> _Copy:
    return _Copy(source, target, tuple(after), SimulatedMark(), time.perf_counter(), name)
