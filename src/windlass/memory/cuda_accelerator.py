"""A CUDA device: memory of its own, and copies on streams of their own, ordered by events alone.

Host buffers are registered as pinned where they lie; an allocator of pinned memory would round their sizes up.
"""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from windlass.errors import DeviceError
from windlass.facts.time_span import OnSpan
from windlass.memory.accelerator import Mark
from windlass.memory.arena import Arena

# cudaHostRegisterPortable of cuda_runtime_api.h: pinned for every context of the process.
_REGISTER_PORTABLE = 1


class CudaMark:
    """An event recorded on a stream."""

    def __init__(self, stream: torch.cuda.Stream, timed: bool = False) -> None:
        self.event = torch.cuda.Event(enable_timing=timed)
        self.event.record(stream)

    def wait(self) -> None:
        """See Mark."""
        self.event.synchronize()


@dataclass(frozen=True, slots=True)
class _Work:
    """What runs between two events of one stream."""

    start: CudaMark
    end: CudaMark
    name: str

    @property
    def seconds(self) -> float:
        """How long it took, once it has ended."""
        return self.start.event.elapsed_time(self.end.event) / 1e3


@dataclass(frozen=True, slots=True)
class _Listener:
    """`on_span` hears in host time: `base` was reached when the host's clock stood at `base_at`."""

    on_span: OnSpan
    base: CudaMark
    base_at: float

    def tell(self, lane: str, work: _Work) -> None:
        """Of work that has ended."""
        start = self.base_at + self.base.event.elapsed_time(work.start.event) / 1e3
        self.on_span(lane, work.name, start, start + work.seconds)


class CudaMemory:
    """`nbytes` bytes of one device."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self.nbytes = nbytes
        try:
            self._bytes = torch.empty(nbytes, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{device} could not give {nbytes:,} bytes though the plan counts on them: something else took memory; "
                "free it, or lower --gpu-memory"
            ) from error

    def tensor(self, offset: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """See DeviceMemory."""
        nbytes = math.prod(shape) * dtype.itemsize
        assert 0 <= offset <= offset + nbytes <= self.nbytes, f"{nbytes} bytes at {offset} of {self.nbytes}"
        return self._bytes[offset : offset + nbytes].view(dtype).view(tuple(shape))

    def poison(self, offset: int, nbytes: int) -> None:
        """Nothing: on a real device a missing wait is found by the same tests on a simulated one."""

    def close(self) -> None:
        """Gives the memory back to torch's allocator."""
        self._bytes = self._bytes[:0]


class CudaAccelerator:
    """One CUDA device. Computation is whatever is issued on the calling thread's current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)
        # Work of each order of which the end has not been seen yet.
        self._under_way: dict[str, deque[_Work]] = {"upload": deque(), "download": deque(), "compute": deque()}
        self._busy, self._nbytes = dict.fromkeys(self._under_way, 0.0), dict.fromkeys(self._under_way, 0)
        self._listener: _Listener | None = None

    def memory(self, nbytes: int) -> CudaMemory:
        """See Accelerator."""
        return CudaMemory(nbytes, self.device)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """See Accelerator."""
        return torch.empty(tuple(shape), dtype=dtype, device=self.device)

    def host_empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """See Accelerator. Torch's pinned allocator keeps a block until the copies that use it have ended."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def pin(self, arena: Arena) -> None:
        """See Accelerator."""
        address = arena.tensor(0, torch.uint8, (arena.nbytes,)).data_ptr()
        code = torch.cuda.cudart().cudaHostRegister(address, arena.nbytes, _REGISTER_PORTABLE)
        if int(code) != 0:
            raise DeviceError(
                f"CUDA could not pin {arena.nbytes:,} bytes of host memory (error {int(code)}); "
                "raise the limit on locked memory (ulimit -l) or lower --host-memory"
            )

    def unpin(self, arena: Arena) -> None:
        """See Accelerator."""
        torch.cuda.cudart().cudaHostUnregister(arena.tensor(0, torch.uint8, (arena.nbytes,)).data_ptr())

    def listen(self, on_span: OnSpan) -> None:
        """See Accelerator."""
        base = CudaMark(torch.cuda.current_stream(self.device), timed=True)
        base.wait()
        self._listener = _Listener(on_span, base, time.perf_counter())

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """See Accelerator. By events, since what is called only begins."""
        stream = torch.cuda.current_stream(self.device)
        start = CudaMark(stream, timed=True)
        try:
            yield
        finally:
            self._under_way["compute"].append(_Work(start, CudaMark(stream, timed=True), name))

    def upload(
        self, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark] = (), name: str = "copy"
    ) -> Mark:
        """See Accelerator. The target's memory may be reused only by work issued after the mark."""
        return self._copy(self._up, "upload", source, target, after, name)

    def download(
        self, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark] = (), name: str = "copy"
    ) -> Mark:
        """See Accelerator. The source is kept from reuse until the copy has ended."""
        source.record_stream(self._down)
        return self._copy(self._down, "download", source, target, (self.mark(), *after), name)

    def mark(self) -> CudaMark:
        """See Accelerator."""
        return CudaMark(torch.cuda.current_stream(self.device))

    def compute_after(self, mark: Mark) -> None:
        """See Accelerator."""
        _stream_after(torch.cuda.current_stream(self.device), mark)

    def busy_seconds(self) -> tuple[float, float]:
        """See Accelerator. Copies still in flight are not counted yet."""
        for lane, under_way in self._under_way.items():
            # They keep their order: the first that has not ended is the last to look at.
            while under_way and under_way[0].end.event.query():
                work = under_way.popleft()
                self._busy[lane] += work.seconds
                if self._listener is not None:
                    self._listener.tell(lane, work)
        return self._busy["upload"], self._busy["download"]

    def copied_bytes(self) -> tuple[int, int]:
        """See Accelerator."""
        return self._nbytes["upload"], self._nbytes["download"]

    def drain(self) -> None:
        """See Accelerator."""
        self._up.synchronize()
        self._down.synchronize()

    def close(self) -> None:
        """See Accelerator."""
        self.drain()
        if self._listener is not None:
            torch.cuda.current_stream(self.device).synchronize()
            self.busy_seconds()

    def _copy(
        self,
        stream: torch.cuda.Stream,
        lane: str,
        source: torch.Tensor,
        target: torch.Tensor,
        after: Sequence[Mark],
        name: str,
    ) -> CudaMark:
        with torch.cuda.stream(stream):
            for mark in after:
                _stream_after(stream, mark)
            start = CudaMark(stream, timed=True)
            target.copy_(source, non_blocking=True)
            end = CudaMark(stream, timed=True)
        self._under_way[lane].append(_Work(start, end, name))
        self._nbytes[lane] += source.nbytes
        return end


def _stream_after(stream: torch.cuda.Stream, mark: Mark) -> None:
    """A mark of another kind is work of the host, which the device cannot wait for: this thread does."""
    if isinstance(mark, CudaMark):
        stream.wait_event(mark.event)
    else:
        mark.wait()
