"""A CUDA device: memory of its own, and copies on streams of their own, ordered by events alone.

Host buffers are registered as pinned where they lie; an allocator of pinned memory would round their sizes up.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import torch

from windlass.errors import DeviceError
from windlass.memory.accelerator import Mark
from windlass.memory.arena import Arena
from windlass.units import MIB

# cudaHostRegisterPortable of cuda_runtime_api.h: pinned for every context of the process.
_REGISTER_PORTABLE = 1
# A millisecond or less of any bus: what an urgent copy may have to wait for.
CHUNK_BYTES = 16 * MIB


class CudaMark:
    """An event recorded on a stream."""

    def __init__(self, stream: torch.cuda.Stream, timed: bool = False) -> None:
        self.event = torch.cuda.Event(enable_timing=timed)
        self.event.record(stream)

    def wait(self) -> None:
        """See Mark."""
        self.event.synchronize()


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
        self._urgent = torch.cuda.Stream(device, priority=-1)
        self._timed: tuple[deque[tuple[CudaMark, CudaMark]], ...] = (deque(), deque())
        self._busy, self._nbytes = [0.0, 0.0], [0, 0]

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

    def upload(
        self, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark] = (), urgent: bool = False
    ) -> Mark:
        """See Accelerator. The target's memory may be reused only by work issued after the mark.

        What is urgent has a stream of its own: the copy engine takes it between two chunks of the others.
        """
        return self._copy(self._urgent if urgent else self._up, 0, source, target, after)

    def download(self, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark] = ()) -> Mark:
        """See Accelerator. The source is kept from reuse until the copy has ended."""
        source.record_stream(self._down)
        return self._copy(self._down, 1, source, target, (self.mark(), *after))

    def mark(self) -> CudaMark:
        """See Accelerator."""
        return CudaMark(torch.cuda.current_stream(self.device))

    def compute_after(self, mark: Mark) -> None:
        """See Accelerator."""
        _stream_after(torch.cuda.current_stream(self.device), mark)

    def busy_seconds(self) -> tuple[float, float]:
        """See Accelerator. Copies still in flight are not counted yet."""
        for way, copies in enumerate(self._timed):
            # Copies keep their order: the first that has not ended is the last to look at.
            while copies and copies[0][1].event.query():
                start, end = copies.popleft()
                self._busy[way] += start.event.elapsed_time(end.event) / 1e3
        return self._busy[0], self._busy[1]

    def copied_bytes(self) -> tuple[int, int]:
        """See Accelerator."""
        return self._nbytes[0], self._nbytes[1]

    def drain(self) -> None:
        """See Accelerator."""
        self._up.synchronize()
        self._urgent.synchronize()
        self._down.synchronize()

    def close(self) -> None:
        """See Accelerator."""
        self.drain()

    def _copy(
        self, stream: torch.cuda.Stream, way: int, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark]
    ) -> CudaMark:
        with torch.cuda.stream(stream):
            for mark in after:
                _stream_after(stream, mark)
            start = CudaMark(stream, timed=True)
            for piece, place in _chunks(source, target):
                place.copy_(piece, non_blocking=True)
            end = CudaMark(stream, timed=True)
        self._timed[way].append((start, end))
        self._nbytes[way] += source.nbytes
        return end


def _chunks(source: torch.Tensor, target: torch.Tensor) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """A run of bytes in pieces that an urgent copy can go between; anything else whole."""
    if source.ndim != 1:
        return [(source, target)]
    step = max(1, CHUNK_BYTES // source.itemsize)
    return zip(source.split(step), target.split(step), strict=True)


def _stream_after(stream: torch.cuda.Stream, mark: Mark) -> None:
    """A mark of another kind is work of the host, which the device cannot wait for: this thread does."""
    if isinstance(mark, CudaMark):
        stream.wait_event(mark.event)
    else:
        mark.wait()
