"""One block of host memory that everything big is carved from, so that a budget is a number and not a hope.

The block is one private anonymous mapping: page aligned (direct I/O wants that), backed by huge pages where the kernel
gives them, charged only as it is touched, and returned to the system in one call.
"""

import math
import mmap
import sys
from collections.abc import Sequence

import torch

PAGE = 4096


class Arena:
    """`nbytes` bytes of zeroed, page-aligned memory, lent as memoryviews and tensors that share its bytes."""

    def __init__(self, nbytes: int) -> None:
        assert nbytes > 0, f"an arena needs a positive size, got {nbytes}"
        self.nbytes = nbytes
        # Python maps shared memory by default, which knows no huge pages and is not given back by MADV_DONTNEED.
        self._map = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if sys.platform == "linux":
            _advise_huge_pages(self._map)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        self._view = memoryview(self._map)
        self.closed = False

    def view(self, offset: int, nbytes: int) -> memoryview:
        """The bytes `offset` to `offset + nbytes`, writable."""
        self._check_range(offset, nbytes)
        return self._view[offset : offset + nbytes]

    def tensor(self, offset: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """A tensor of `dtype` and `shape` over the bytes from `offset` on; `offset` must suit the item size."""
        nbytes = math.prod(shape) * dtype.itemsize
        self._check_range(offset, nbytes)
        assert offset % dtype.itemsize == 0, f"offset {offset} is not a multiple of {dtype.itemsize} bytes of {dtype}"
        return self._bytes[offset : offset + nbytes].view(dtype).view(tuple(shape))

    def touch(self) -> None:
        """Has the system provide all pages now: the first to write to one would wait for it, perhaps in a pass."""
        self._bytes[::PAGE].fill_(0)

    def close(self) -> None:
        """Gives the memory back at once; tensors and views still held read zeros from then on (on Linux)."""
        if self.closed:
            return
        self.closed = True
        if sys.platform == "linux":
            self._map.madvise(mmap.MADV_DONTNEED)
        # The address range itself goes when the last view does.
        del self._bytes, self._view, self._map

    def check(self) -> None:
        """Asserts that the tensor and the mapping are the same, page-aligned bytes."""
        assert not self.closed, "the arena is closed"
        assert len(self._map) == self._bytes.numel() == self.nbytes, f"{len(self._map)} bytes mapped of {self.nbytes}"
        assert self._bytes.data_ptr() % PAGE == 0, f"the arena begins at {self._bytes.data_ptr():#x}, not on a page"

    def _check_range(self, offset: int, nbytes: int) -> None:
        assert not self.closed, "the arena is closed"
        assert 0 <= offset <= offset + nbytes <= self.nbytes, f"{nbytes} bytes at {offset} of an arena of {self.nbytes}"


def _advise_huge_pages(mapping: mmap.mmap) -> None:
    try:
        mapping.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        # A kernel built without transparent huge pages; ordinary pages only cost more faults.
        return
