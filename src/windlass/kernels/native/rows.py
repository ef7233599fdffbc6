"""Matrices whose rows are blocks one after another, unpacked or multiplied by the native kernel: GGUF's types.

Legend: R rows of activations, N outputs, K inputs.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from windlass.kernels.native.compiler import Compiler, Missing
from windlass.kernels.native.loading import KINDS, Loaded, load, load_here
from windlass.kernels.packed_matrix import PackedMatrix

SOURCE = "packed_rows.c"
TYPES = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4",
)  # fmt: skip
"""By GGUF's names."""


class RowsJob(ctypes.Structure):
    """`struct matrix` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("blocks", "x", "y")),
        *((name, ctypes.c_int64) for name in ("kind", "encoding", "rows", "columns", "outputs", "threads")),
    )


@dataclass(frozen=True, slots=True)
class RowType:
    """A type as the C source numbers it: so many numbers in so many bytes."""

    encoding: int
    numbers: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class RowsLibrary:
    """`fill` fills the y of its job, for a matrix of one of `types`; `says` is for people."""

    path: Path
    dtypes: frozenset[torch.dtype]
    says: str
    fill: Callable[[RowsJob], None]
    types: Mapping[str, RowType]


@cache
def rows_library() -> RowsLibrary | Missing:
    """The library for this processor. The first call may take seconds, when a compiler runs."""
    return _bound(load_here(SOURCE))


def build_rows(compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> RowsLibrary | Missing:
    """Compiles if need be, and loads."""
    return _bound(load(SOURCE, compiler, folder, processor_flags))


def native_rows(
    library: RowsLibrary, matrix: PackedMatrix, start: int, stop: int, dtype: torch.dtype
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop as they lie -> (stop - start, K) in `dtype`. Numbers are made in float32 and then rounded."""
    if dtype not in library.dtypes:
        return native_rows(library, matrix, start, stop, torch.float32).to(dtype)
    y = torch.empty(stop - start, matrix.shape[1], dtype=dtype)
    if y.numel():
        _fill(library, matrix, start, stop, None, y)
    return y


def native_rows_product(library: RowsLibrary, matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
    """x (R, K) times the transpose of the matrix (N, K) as its rows lie -> (R, N) in the dtype of x; few rows only.

    Products and sums are float32, of numbers that were not rounded.
    """
    assert x.shape == (len(x), matrix.shape[1]) and x.device.type == "cpu"
    dtype = x.dtype if x.dtype in library.dtypes else torch.float32
    y = torch.empty(len(x), matrix.shape[0], dtype=dtype)
    if y.numel():
        _fill(library, matrix, 0, matrix.shape[0], x.float().contiguous(), y)
    return y.to(x.dtype)


def _fill(
    library: RowsLibrary, matrix: PackedMatrix, start: int, stop: int, x: torch.Tensor | None, y: torch.Tensor
) -> None:
    (rows, columns), blocks, kind = matrix.shape, matrix.parts["blocks"], library.types[matrix.packing.name]
    row_bytes = columns // kind.numbers * kind.nbytes
    # What torch would check itself: the kernel reads where it is told.
    assert columns % kind.numbers == 0 and blocks.is_contiguous() and blocks.device.type == "cpu"
    assert blocks.nbytes == rows * row_bytes and 0 <= start <= stop <= rows
    library.fill(
        RowsJob(
            blocks.data_ptr() + start * row_bytes, None if x is None else x.data_ptr(), y.data_ptr(),
            KINDS[y.dtype], kind.encoding, 0 if x is None else len(x), columns, stop - start, torch.get_num_threads(),
        )
    )  # fmt: skip


def _bound(loaded: Loaded | Missing) -> RowsLibrary | Missing:
    if isinstance(loaded, Missing):
        return loaded
    fill, ask = loaded.functions.windlass_packed_rows, loaded.functions.windlass_encoding
    fill.argtypes, fill.restype = [ctypes.POINTER(RowsJob)], None
    ask.argtypes, ask.restype = [ctypes.c_char_p, *[ctypes.POINTER(ctypes.c_int64)] * 2], ctypes.c_int64
    types = {}
    for name in TYPES:
        numbers, nbytes = ctypes.c_int64(), ctypes.c_int64()
        number = ask(name.encode(), numbers, nbytes)
        types[name] = RowType(number, numbers.value, nbytes.value)
    return RowsLibrary(loaded.path, loaded.dtypes, loaded.says, lambda job: fill(ctypes.byref(job)), types)
