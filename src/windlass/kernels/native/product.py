"""Products with Windlass's own blocks by the native kernel: codes are unpacked in registers, never in memory.

Legend: R rows of activations, N outputs, K inputs.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from windlass.kernels.encodings.blocks import BLOCK_BYTES, block_shape, codebooks
from windlass.kernels.native.compiler import Compiler, Missing
from windlass.kernels.native.loading import KINDS, Loaded, load, load_here
from windlass.kernels.packed_matrix import PackedMatrix

SOURCE = "packed_product.c"
PACKINGS = frozenset(BLOCK_BYTES)
"""Those that the kernel multiplies, by name."""


class ProductJob(ctypes.Structure):
    """`struct product` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "blocks", "books", "y", "laid")),
        *((name, ctypes.c_int64) for name in ("kind", "bits", "rows", "columns", "outputs", "threads")),
    )


@dataclass(frozen=True, slots=True)
class ProductLibrary:
    """`multiply` fills the y of its job, `scratch` counts the bytes that it needs for x, `says` is for people."""

    path: Path
    dtypes: frozenset[torch.dtype]
    says: str
    multiply: Callable[[ProductJob], None]
    scratch: Callable[[ProductJob], int]


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
    (outputs, columns), blocks = matrix.shape, matrix.parts["blocks"]
    x, books = x.contiguous(), _books()
    # What torch would check itself: the kernel reads where it is told.
    assert x.shape == (len(x), columns) and x.device.type == blocks.device.type == "cpu" and blocks.is_contiguous()
    assert blocks.view(-1).shape == (torch.Size(block_shape(matrix.packing, outputs, columns)).numel(),)
    y = x.new_empty(len(x), outputs)
    if not y.numel():
        return y
    job = ProductJob(
        x.data_ptr(), blocks.data_ptr(), books.data_ptr(), y.data_ptr(), None,
        KINDS[x.dtype], matrix.packing.bits, len(x), columns, outputs, torch.get_num_threads(),
    )  # fmt: skip
    scratch = torch.empty(library.scratch(job), dtype=torch.uint8)
    job.laid = scratch.data_ptr()
    library.multiply(job)
    return y


@cache
def _books() -> torch.Tensor:
    """bfloat16 (64,)."""
    return codebooks().bfloat16().flatten().contiguous()


def _bound(loaded: Loaded | Missing) -> ProductLibrary | Missing:
    if isinstance(loaded, Missing):
        return loaded
    multiply, scratch = loaded.functions.windlass_packed_product, loaded.functions.windlass_product_scratch
    for function in (multiply, scratch):
        function.argtypes = [ctypes.POINTER(ProductJob)]
    multiply.restype, scratch.restype = None, ctypes.c_int64
    return ProductLibrary(
        loaded.path, loaded.dtypes, loaded.says,
        lambda job: multiply(ctypes.byref(job)), lambda job: scratch(ctypes.byref(job)),
    )  # fmt: skip
