"""Products with packed matrices by the native kernel: Windlass's own blocks, other programs' formats, and GGUF's types
where AVX-512 is.

Codes are unpacked next to the arithmetic, at most a tile in the first cache.

Legend: R rows of activations, N outputs, K inputs.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import torch

from windlass.kernels.encodings.blocks import BLOCK_BYTES, block_shape, codebooks
from windlass.kernels.native.compiler import Compiler, Missing
from windlass.kernels.native.foreign import (
    LAYOUTS,
    LEAST_ROWS,
    WAYS,
    ForeignJob,
    ForeignLayout,
    book_of,
    foreign_layout,
)
from windlass.kernels.native.loading import KINDS, Loaded, load, load_here, threads_for
from windlass.kernels.native.rows import TYPES
from windlass.kernels.packed_matrix import PackedMatrix

SOURCE = "packed_product.c"


class Matrix(ctypes.Structure):
    """`struct matrix` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("blocks", "books")),
        *((name, ctypes.c_int64) for name in ("format", "columns", "outputs")),
        ("foreign", ForeignJob),
    )


@dataclass(frozen=True, slots=True)
class ProductLibrary:
    """`multiply(matrix, x, y, scratch, kind, rows, threads)` fills y, for a packing or a foreign way of `formats`,
    which the C source numbers; `row_scratch(matrix, kind)` counts the bytes that it needs for a row of x, and
    `thread_scratch(matrix)` for a thread; `says` is for people."""

    path: Path
    dtypes: frozenset[torch.dtype]
    says: str
    multiply: Callable[[int, int, int, int, int, int, int], None]
    row_scratch: Callable[[int, int], int]
    thread_scratch: Callable[[int], int]
    formats: Mapping[str, int]

    def multiplies(self, matrix: PackedMatrix) -> bool:
        """Whether this is a matrix for it."""
        name = matrix.packing.name
        if name in LAYOUTS:
            return foreign_layout(matrix) is not None
        return name in self.formats and (name in BLOCK_BYTES or matrix.shape[0] >= LEAST_ROWS)


class PreparedProduct:
    """A matrix that was looked over once: with a single row a product takes as long as a few calls of Python."""

    def __init__(self, library: ProductLibrary, matrix: PackedMatrix) -> None:
        """Keeps the matrix's bytes. Raises AssertionError where they are not what its shape and packing say."""
        layout, (outputs, columns) = foreign_layout(matrix), matrix.shape
        format, codes, books = _codes(library, matrix, layout)
        foreign = ForeignJob() if layout is None else layout.job(columns)
        self.outputs, self.columns = outputs, columns
        self._library, self._held = library, (codes, books, layout)
        self._matrix = Matrix(codes.data_ptr(), books.data_ptr(), format, columns, outputs, foreign)
        self._at = ctypes.addressof(self._matrix)
        self._row_scratch = {dtype: library.row_scratch(self._at, KINDS[dtype]) for dtype in library.dtypes}
        self._thread_scratch = library.thread_scratch(self._at)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., K) times the transpose of the matrix as its rows lie -> (..., N) in the dtype of x."""
        of_a_row = self._row_scratch.get(x.dtype)
        if of_a_row is None:
            return self(x.float()).to(x.dtype)
        x = x.contiguous()
        assert x.shape[-1] == self.columns and x.is_cpu
        rows = x.numel() // self.columns
        y = torch.empty((*x.shape[:-1], self.outputs), dtype=x.dtype)
        if rows:
            threads = threads_for(self.outputs * self.columns, rows)
            scratch = torch.empty(rows * of_a_row + threads * self._thread_scratch, dtype=torch.uint8)
            self._library.multiply(
                self._at, x.data_ptr(), y.data_ptr(), scratch.data_ptr(), KINDS[x.dtype], rows, threads
            )
        return y


@cache
def product_library() -> ProductLibrary | Missing:
    """The library for this processor. The first call may take seconds, when a compiler runs."""
    return _bound(load_here(SOURCE))


def build_product(compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> ProductLibrary | Missing:
    """Compiles if need be, and loads."""
    return _bound(load(SOURCE, compiler, folder, processor_flags))


def native_product(library: ProductLibrary, matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
    """x (R, K) times the transpose of the matrix (N, K) as its rows lie -> (R, N) in the dtype of x."""
    return PreparedProduct(library, matrix)(x)


def _codes(
    library: ProductLibrary, matrix: PackedMatrix, layout: ForeignLayout | None
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """The number of its format, its codes, and what they stand for.

    What torch would check itself is checked here, since the kernel reads where it is told.
    """
    if layout is not None:
        return library.formats[layout.way], matrix.parts["codes"], book_of(layout.way)
    assert matrix.packing.name not in LAYOUTS, f"{matrix.packing.name} is not as the kernel reads it"
    blocks = matrix.parts["blocks"]
    assert blocks.device.type == "cpu" and blocks.is_contiguous()
    assert blocks.nbytes == packed_bytes(matrix) and library.multiplies(matrix)
    return library.formats[matrix.packing.name], blocks, _books()


def packed_bytes(matrix: PackedMatrix) -> int:
    """What a matrix of that shape and packing has."""
    rows, columns = matrix.shape
    if matrix.packing.name in BLOCK_BYTES:
        return prod(block_shape(matrix.packing, rows, columns))
    numbers, nbytes = TYPES[matrix.packing.name]
    assert columns % numbers == 0, f"{columns} columns in blocks of {numbers}"
    return rows * (columns // numbers) * nbytes


@cache
def _books() -> torch.Tensor:
    """bfloat16 (64,)."""
    return codebooks().bfloat16().flatten().contiguous()


def _bound(loaded: Loaded | Missing) -> ProductLibrary | Missing:
    if isinstance(loaded, Missing):
        return loaded
    multiply, of_a_row = loaded.functions.windlass_packed_product, loaded.functions.windlass_row_scratch
    of_a_thread = loaded.functions.windlass_thread_scratch
    ask, formats = loaded.functions.windlass_product_format, {}
    ask.argtypes, ask.restype = [ctypes.c_char_p], ctypes.c_int64
    for name in (*BLOCK_BYTES, *TYPES, *WAYS):
        if (number := ask(name.encode())) >= 0:
            formats[name] = number
    multiply.argtypes, multiply.restype = [*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 3], None
    of_a_row.argtypes, of_a_row.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_int64
    of_a_thread.argtypes, of_a_thread.restype = [ctypes.c_void_p], ctypes.c_int64
    return ProductLibrary(loaded.path, loaded.dtypes, loaded.says, multiply, of_a_row, of_a_thread, formats)
