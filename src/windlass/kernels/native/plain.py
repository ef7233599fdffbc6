"""Products of a few rows with a bfloat16 or float16 matrix as a checkpoint has it, by the native kernel.

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
from windlass.kernels.native.loading import KINDS, Loaded, load, load_here, threads_for

SOURCE = "plain_product.c"
ALIGNMENT = 64
"""Of the scratch, in bytes."""


class PlainJob(ctypes.Structure):
    """`struct plain` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "w", "bias", "y", "laid")),
        *((name, ctypes.c_int64) for name in ("kind", "rows", "columns", "outputs", "threads")),
    )


@dataclass(frozen=True, slots=True)
class PlainLibrary:
    """`multiply` fills the y of its job, of at most `most_rows` rows of one of `dtypes`; `scratch(kind, R, K)` counts
    the bytes of its `laid`; `says` is for people."""

    path: Path
    dtypes: frozenset[torch.dtype]
    says: str
    multiply: Callable[[PlainJob], None]
    scratch: Callable[[int, int, int], int]
    most_rows: int

    def multiplies(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
        """Whether x (..., K) times the transpose of the weight (N, K), plus the bias (N,), is a product for it."""
        return (
            0 < x.numel() <= self.most_rows * x.shape[-1]
            and x.dtype in self.dtypes
            and self._reads(weight, x.dtype)
            and (bias is None or self._reads(bias, x.dtype))
            and x.is_cpu
        )

    def _reads(self, tensor: torch.Tensor, dtype: torch.dtype) -> bool:
        """Whether its numbers lie in memory, one after another, as the kernel reads them."""
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        return plain and tensor.dtype == dtype and tensor.is_cpu and tensor.is_contiguous()


@cache
def plain_library() -> PlainLibrary | Missing:
    """The library for this processor. The first call may take seconds, when a compiler runs."""
    return _bound(load_here(SOURCE))


def build_plain(compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> PlainLibrary | Missing:
    """Compiles if need be, and loads."""
    return _bound(load(SOURCE, compiler, folder, processor_flags))


def plain_product(
    library: PlainLibrary, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x (..., K) times the transpose of the weight (N, K), plus the bias (N,) -> (..., N) in the dtype of all of them;
    at most `library.most_rows` rows."""
    x, (outputs, columns) = x.contiguous(), weight.shape
    # What torch would check itself: the kernel reads where it is told.
    assert x.shape[-1] == columns and library.multiplies(x, weight, bias)
    assert bias is None or bias.shape == (outputs,)
    rows, kind = x.numel() // columns, KINDS[x.dtype]
    y = torch.empty((*x.shape[:-1], outputs), dtype=x.dtype)
    scratch = torch.empty(library.scratch(kind, rows, columns) + ALIGNMENT, dtype=torch.uint8)
    laid = -(-scratch.data_ptr() // ALIGNMENT) * ALIGNMENT
    added, threads = None if bias is None else bias.data_ptr(), threads_for(outputs * columns, rows)
    library.multiply(
        PlainJob(
            x.data_ptr(), weight.data_ptr(), added, y.data_ptr(), laid, kind, rows, columns, outputs, threads
        )
    )  # fmt: skip
    return y


def _bound(loaded: Loaded | Missing) -> PlainLibrary | Missing:
    if isinstance(loaded, Missing):
        return loaded
    multiply, scratch = loaded.functions.windlass_plain_product, loaded.functions.windlass_laid_bytes
    multiply.argtypes, multiply.restype = [ctypes.POINTER(PlainJob)], None
    scratch.argtypes, scratch.restype = [ctypes.c_int64] * 3, ctypes.c_int64
    most = loaded.functions.windlass_most_rows
    most.argtypes, most.restype = [], ctypes.c_int64
    return PlainLibrary(
        loaded.path,
        loaded.dtypes - {torch.float32},  # float32 gives torch's own sums, bit by bit
        loaded.says,
        lambda job: multiply(ctypes.byref(job)),
        scratch,
        most(),
    )
