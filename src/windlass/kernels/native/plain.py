"""Products of one or two rows with a bfloat16 matrix as a checkpoint has it, by the native kernel.

They are bound by reading the matrix, and torch reads it at half the speed of memory (dev/packed_products.md).

Legend: R rows of activations, N outputs, K inputs.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from windlass.kernels.native.compiler import Compiler, Missing
from windlass.kernels.native.loading import Loaded, load, load_here, threads_for

SOURCE = "plain_product.c"


class PlainJob(ctypes.Structure):
    """`struct plain` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "w", "y")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "outputs", "threads")),
    )


@dataclass(frozen=True, slots=True)
class PlainLibrary:
    """`multiply` fills the y of its job, of at most `most_rows` rows; `says` is for people."""

    path: Path
    says: str
    multiply: Callable[[PlainJob], None]
    most_rows: int

    def multiplies(self, x: torch.Tensor, weight: torch.Tensor) -> bool:
        """Whether x (..., K) times the transpose of the weight (N, K) is a product for it."""
        return (
            x.dtype == weight.dtype == torch.bfloat16
            and type(weight) in (torch.Tensor, torch.nn.Parameter)
            and x.is_cpu
            and weight.is_cpu
            and weight.is_contiguous()
            and 0 < x.numel() <= self.most_rows * x.shape[-1]
        )


@cache
def plain_library() -> PlainLibrary | Missing:
    """The library for this processor. The first call may take seconds, when a compiler runs."""
    return _bound(load_here(SOURCE))


def build_plain(compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> PlainLibrary | Missing:
    """Compiles if need be, and loads."""
    return _bound(load(SOURCE, compiler, folder, processor_flags))


def plain_product(library: PlainLibrary, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x (..., K) times the transpose of the weight (N, K) -> (..., N), bfloat16; at most `library.most_rows` rows."""
    x, (outputs, columns) = x.contiguous(), weight.shape
    # What torch would check itself: the kernel reads where it is told.
    assert x.shape[-1] == columns and library.multiplies(x, weight)
    rows = x.numel() // columns
    y = torch.empty((*x.shape[:-1], outputs), dtype=x.dtype)
    threads = threads_for(outputs * columns, rows)
    library.multiply(PlainJob(x.data_ptr(), weight.data_ptr(), y.data_ptr(), rows, columns, outputs, threads))
    return y


def _bound(loaded: Loaded | Missing) -> PlainLibrary | Missing:
    if isinstance(loaded, Missing):
        return loaded
    multiply, most = loaded.functions.windlass_plain_product, loaded.functions.windlass_most_rows
    multiply.argtypes, multiply.restype = [ctypes.POINTER(PlainJob)], None
    most.argtypes, most.restype = [], ctypes.c_int64
    return PlainLibrary(loaded.path, loaded.says, lambda job: multiply(ctypes.byref(job)), most())
