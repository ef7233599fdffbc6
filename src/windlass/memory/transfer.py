"""Bytes on their way to a CUDA device: pinned host memory, an arena on the device, and copies on a stream of their own.

Host buffers are registered as pinned where they lie; an allocator of pinned memory would round their sizes up. Copies
are ordered by events alone: nothing here waits for the whole device.
"""

import math
from collections.abc import Sequence

import torch

from windlass.errors import DeviceError
from windlass.memory.arena import Arena

# cudaHostRegisterDefault of cuda_runtime_api.h.
_REGISTER_DEFAULT = 0


class DeviceArena:
    """`nbytes` bytes of one device, lent as tensors that share them."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self.nbytes, self.device = nbytes, device
        try:
            self._bytes = torch.empty(nbytes, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{device} could not give {nbytes:,} bytes though the plan counts on them: something else took memory; "
                "free it, or lower --gpu-memory"
            ) from error

    def tensor(self, offset: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """A tensor over the bytes from `offset` on, which must suit the item size."""
        nbytes = math.prod(shape) * dtype.itemsize
        assert 0 <= offset <= offset + nbytes <= self.nbytes, f"{nbytes} bytes at {offset} of {self.nbytes}"
        return self._bytes[offset : offset + nbytes].view(dtype).view(tuple(shape))

    def close(self) -> None:
        """Gives the memory back to torch's allocator."""
        self._bytes = self._bytes[:0]


class Uploads:
    """Copies runs of a pinned host arena to the same device, in order, on one stream."""

    def __init__(self, source: Arena, target: DeviceArena) -> None:
        self._source = source.tensor(0, torch.uint8, (source.nbytes,))
        self._target = target.tensor(0, torch.uint8, (target.nbytes,))
        self._stream = torch.cuda.Stream(target.device)
        _pin(self._source)

    def copy(self, source: int, target: int, nbytes: int, after: torch.cuda.Event | None) -> torch.cuda.Event:
        """Copies `nbytes` from host offset `source` to device offset `target` once `after` has happened.

        Returns the event of its end: the compute stream waits for it, and so does whoever reuses the host bytes.
        """
        with torch.cuda.stream(self._stream):
            if after is not None:
                self._stream.wait_event(after)
            self._target[target : target + nbytes].copy_(self._source[source : source + nbytes], non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        return done

    def close(self) -> None:
        """Ends the copies in flight and unpins the host memory."""
        self._stream.synchronize()
        torch.cuda.cudart().cudaHostUnregister(self._source.data_ptr())
        del self._source, self._target


def _pin(tensor: torch.Tensor) -> None:
    code = torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, _REGISTER_DEFAULT)
    if int(code) != 0:
        raise DeviceError(
            f"CUDA could not pin {tensor.nbytes:,} bytes of host memory (error {int(code)}); "
            "raise the limit on locked memory (ulimit -l) or lower --host-memory"
        )
