"""How attention and packed weights multiply, chosen with a reason that `doctor` can say and tests can override."""

from dataclasses import dataclass
from typing import Literal

import torch

from windlass.kernels.cuda.backend import DeviceKernels, device_kernels
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.library import NativeLibrary, native_library
from windlass.kernels.native.product import product_library
from windlass.kernels.native.rows import RowsLibrary, rows_library
from windlass.kernels.packed_matrix import PackedMatrix

WIDENED_ROWS = 1
"""Up to so many query rows for a key, converting the key costs less than a second product (dev/decode_attention.md)."""


BY_ROW_ROWS = 4
"""Up to so many rows of activations, a pass over the rows of a packed matrix beats unpacking tiles for torch."""


@dataclass(frozen=True, slots=True)
class ProductChoice:
    """`native` and `device` are our own kernels, on the processor and on a device, for decode only. `exact` multiplies
    in float32, `widened` converts a block of 16-bit keys and values to float32 while it is in cache, `paired`
    multiplies in 16 bits and restores what the scores lost by a second product."""

    name: Literal["native", "device", "exact", "widened", "paired"]
    reason: str


@dataclass(frozen=True, slots=True)
class PackedChoice:
    """`fused` is our own kernel, which unpacks next to the arithmetic; `by_row` another for processors without AVX-512,
    which does so for a few activations; `tiles` unpacks some rows at a time for torch."""

    name: Literal["fused", "by_row", "tiles"]
    reason: str


def choose_packed(matrix: PackedMatrix, rows: int) -> PackedChoice:
    """How `rows` activations are multiplied with a packed matrix, where its bytes lie."""
    name, place = matrix.packing.name, matrix.device.type
    if place != "cpu":
        return PackedChoice("tiles", f"no kernel for {name} on {place}")
    library = product_library()
    if isinstance(library, Missing):
        return PackedChoice("tiles", library.reason)
    if library.multiplies(matrix):
        return PackedChoice("fused", library.says)
    by_row = rows_library()
    if rows <= BY_ROW_ROWS and isinstance(by_row, RowsLibrary) and name in by_row.types:
        return PackedChoice("by_row", by_row.says)
    return PackedChoice("tiles", f"no kernel for {rows} rows by {name} on this processor")


def choose_decode(dtype: torch.dtype, device: torch.device, rows: int) -> ProductChoice:
    """How one query of each sequence attends, `rows` query rows to a key: by the native kernel where there is one."""
    if device.type == "cpu":
        library = native_library()
        if isinstance(library, NativeLibrary) and dtype in library.dtypes:
            return ProductChoice("native", library.says)
    if device.type == "cuda":
        kernels = device_kernels()
        if isinstance(kernels, DeviceKernels):
            return ProductChoice("device", kernels.says)
    return choose_products(dtype, device, rows)


def decode_backend() -> str:
    """What attends on this processor, and why, for people."""
    library = native_library()
    if isinstance(library, NativeLibrary):
        return f"native kernel ({library.says})"
    return f"plain torch, since {library.reason}"


def product_backend() -> str:
    """What multiplies packed weights on this processor, and why, for people."""
    library = product_library()
    return f"plain torch, since {library.reason}" if isinstance(library, Missing) else f"native kernel ({library.says})"


def choose_products(dtype: torch.dtype, device: torch.device, rows: int) -> ProductChoice:
    """The fastest way that keeps scores in float32, where `rows` query rows are multiplied with each key of `dtype`."""
    if dtype == torch.float32:
        return ProductChoice("exact", "float32 products round once, nothing to restore")
    if device.type == "cpu" and not _multiplies(dtype):
        return ProductChoice("widened", f"this processor has no {dtype} products; blocks become float32 in cache")
    if device.type == "cpu" and rows <= WIDENED_ROWS:
        return ProductChoice("widened", f"{rows} rows for a key: float32 in cache costs less than a second product")
    return ProductChoice("paired", f"{device.type} multiplies {dtype} fast, {rows} rows for a key make it worth it")


def _multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies matrices of `dtype` natively on this processor."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
