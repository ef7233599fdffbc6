"""What the engine asks of a device beside the host: memory of its own, and copies that run while it computes.

Three orders of work run side by side: copies to the device, computation, and copies to the host. Each keeps its own
order; between them only marks order anything, and nothing ever waits for the whole device.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from windlass.facts.time_span import OnSpan
from windlass.memory.arena import Arena


class Mark(Protocol):
    """A point in one order of work; it is reached when everything issued there before has ended."""

    def wait(self) -> None:
        """Holds the calling thread until the point is reached. Raises DeviceError where the device failed."""
        ...


class DeviceMemory(Protocol):
    """A block of device memory, lent as tensors that share its bytes."""

    nbytes: int

    def tensor(self, offset: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """A tensor over the bytes from `offset` on, which must suit the item size."""
        ...

    def poison(self, offset: int, nbytes: int) -> None:
        """Says that these bytes hold nothing valid until they are written again."""
        ...

    def close(self) -> None:
        """Gives the memory back."""
        ...


class Accelerator(Protocol):
    """A device that computes by torch's `device` and has memory of its own, behind a link."""

    device: torch.device

    def memory(self, nbytes: int) -> DeviceMemory:
        """A block of the device's memory. Raises DeviceError if there is none."""
        ...

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A passing tensor on the device, of which nothing is valid yet."""
        ...

    def host_empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A passing tensor in host memory, fit for copies that run by themselves."""
        ...

    def pin(self, arena: Arena) -> None:
        """Makes an arena's bytes fit for copies that run by themselves. Raises DeviceError."""
        ...

    def unpin(self, arena: Arena) -> None:
        """Undoes `pin`, once no copy is in flight."""
        ...

    def listen(self, on_span: OnSpan) -> None:
        """Tells of every copy, and of what is `timed`, from now on, when it is known; on `close` at the latest."""
        ...

    def timed(self, name: str) -> AbstractContextManager[None]:
        """What is computed within is told of as one span."""
        ...

    def upload(
        self, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark] = (), name: str = "copy"
    ) -> Mark:
        """Copies host `source` to device `target` (equal shapes and dtypes) once `after` is reached."""
        ...

    def download(
        self, source: torch.Tensor, target: torch.Tensor, after: Sequence[Mark] = (), name: str = "copy"
    ) -> Mark:
        """Copies device `source`, as computed by what was issued before, to host `target` once `after` is reached."""
        ...

    def mark(self) -> Mark:
        """The point that computation has been issued up to."""
        ...

    def compute_after(self, mark: Mark) -> None:
        """What is computed from here on comes after `mark`."""
        ...

    def busy_seconds(self) -> tuple[float, float]:
        """Seconds spent copying to the device, and to the host."""
        ...

    def copied_bytes(self) -> tuple[int, int]:
        """Bytes copied to the device, and to the host."""
        ...

    def drain(self) -> None:
        """Returns when every copy begun has ended."""
        ...

    def close(self) -> None:
        """Ends the copies in flight and what carries them."""
        ...
