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


class ProductJob(ctypes.Structure):
    """`struct product` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "blocks", "books", "y", "laid")),
        *((name, ctypes.c_int64) for name in ("kind", "format", "rows", "columns", "outputs", "threads")),
        ("foreign", ForeignJob),
    )


@dataclass(frozen=True, slots=True)
class ProductLibrary:
    """`multiply` fills the y of its job, for a packing or a foreign way of `formats`, which the C source numbers;
    `scratch` counts the bytes that it needs for x; `says` is for people."""

    path: Path
    dtypes: frozenset[torch.dtype]
    says: str
    multiply: Callable[[ProductJob], None]
    scratch: Callable[[ProductJob], int]
    formats: Mapping[str, int]

    def multiplies(self, matrix: PackedMatrix) -> bool:
        """Whether this is a matrix for it."""
        name = matrix.packing.name
        if name in LAYOUTS:
            return foreign_layout(matrix) is not None
        return name in self.formats and (name in BLOCK_BYTES or matrix.shape[0] >= LEAST_ROWS)


@cache
def product_library() -> ProductLibrary | Missing:
    """The library for this processor. The first call may take seconds, when a compiler runs."""
    return _bound(load_here(SOURCE))


def build_product(compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> ProductLibrary | Missing:
    """Compiles if need be, and loads."""
    return _bound(load(SOURCE, compiler, folder, processor_flags))


def native_product(library: ProductLibrary, matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
    """x (R, K) times the transpose of the matrix (N, K) as its rows lie -> (R, N) in the dtype of x."""
    if x.dtype not in library.dtypes:
        return native_product(library, matrix, x.float()).to(x.dtype)
    (outputs, columns), x = matrix.shape, x.contiguous()
    assert x.shape == (len(x), columns) and x.device.type == "cpu"
    y = x.new_empty(len(x), outputs)
    layout = foreign_layout(matrix)
    format, codes, books = _codes(library, matrix, layout)
    if not y.numel():
        return y
    job = ProductJob(
        x.data_ptr(), codes.data_ptr(), books.data_ptr(), y.data_ptr(), None, KINDS[x.dtype], format, len(x), columns,
        outputs, threads_for(outputs * columns, len(x)), ForeignJob() if layout is None else layout.job(columns),
    )  # fmt: skip
    scratch = torch.empty(library.scratch(job), dtype=torch.uint8)
    job.laid = scratch.data_ptr()
    library.multiply(job)
    return y


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
    multiply, scratch = loaded.functions.windlass_packed_product, loaded.functions.windlass_product_scratch
    ask, formats = loaded.functions.windlass_product_format, {}
    ask.argtypes, ask.restype = [ctypes.c_char_p], ctypes.c_int64
    for name in (*BLOCK_BYTES, *TYPES, *WAYS):
        if (number := ask(name.encode())) >= 0:
            formats[name] = number
    for function in (multiply, scratch):
        function.argtypes = [ctypes.POINTER(ProductJob)]
    multiply.restype, scratch.restype = None, ctypes.c_int64
    return ProductLibrary(
        loaded.path, loaded.dtypes, loaded.says,
        lambda job: multiply(ctypes.byref(job)), lambda job: scratch(ctypes.byref(job)), formats,
    )  # fmt: skip
