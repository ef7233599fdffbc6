"""Products with packed matrices: by the native kernel, or unpacked a tile at a time and multiplied at once.

Legend: R rows of activations, N outputs, K inputs, n outputs of a tile.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from windlass.kernels.backend import PackedChoice, choose_packed
from windlass.kernels.cuda.product import device_linear, device_multiplies
from windlass.kernels.encodings.table import unpack_rows
from windlass.kernels.native.product import PreparedProduct, ProductLibrary, native_product, product_library
from windlass.kernels.native.rows import TYPES, RowsLibrary, native_rows, native_rows_product, rows_library
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.units import MIB

TILE_BYTES = 4 * MIB
"""Of unpacked numbers at a time: they are multiplied while they are in cache."""
TILE_ROWS = 16
"""Tiles are multiples of so many rows: no packing has taller blocks."""


def packed_linear(matrix: PackedMatrix, x: torch.Tensor, choice: PackedChoice | None = None) -> torch.Tensor:
    """x (..., K) times the transpose of the matrix (N, K) -> (..., N), in the dtype of x.

    `choice` overrides the way of multiplying, for tests.
    """
    rows, columns = matrix.shape
    flat = x.reshape(-1, columns)
    if device_multiplies(x):
        return head_order(matrix, device_linear(matrix, flat)).view(*x.shape[:-1], rows)
    out = _product(matrix, flat, choice or choose_packed(matrix, len(flat)))
    return head_order(matrix, out).view(*x.shape[:-1], rows)


def prepared_linear(matrix: PackedMatrix) -> Callable[[torch.Tensor], torch.Tensor]:
    """`packed_linear` of a matrix that is multiplied again and again: what does not depend on x is done once."""
    library = product_library()
    if isinstance(library, ProductLibrary) and not matrix.heads and choose_packed(matrix, 1).name == "fused":
        return PreparedProduct(library, matrix)
    return partial(packed_linear, matrix)


def prepare_products() -> None:
    """Compiles what products may want, which takes seconds where it was not done before."""
    product_library()
    rows_library()


def unpacked(matrix: PackedMatrix, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
    """As `unpack_rows`, bit by bit, by the native kernel where there is one."""
    library = rows_library() if matrix.device.type == "cpu" and matrix.packing.name in TYPES else None
    if isinstance(library, RowsLibrary):
        return native_rows(library, matrix, start, stop, dtype)
    return unpack_rows(matrix, start, stop, dtype)


def _product(matrix: PackedMatrix, x: torch.Tensor, choice: PackedChoice) -> torch.Tensor:
    """x (R, K) -> (R, N), rows as they lie."""
    if choice.name == "fused" and isinstance(library := product_library(), ProductLibrary):
        return native_product(library, matrix, x)
    if choice.name == "by_row" and isinstance(by_row := rows_library(), RowsLibrary):
        return native_rows_product(by_row, matrix, x)
    rows, columns = matrix.shape
    step = max(TILE_ROWS, TILE_BYTES // (columns * x.dtype.itemsize) // TILE_ROWS * TILE_ROWS)
    out = x.new_empty(len(x), rows)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        out[:, start:stop] = F.linear(x, unpacked(matrix, start, stop, x.dtype))
    return out


def dense(matrix: PackedMatrix, dtype: torch.dtype) -> torch.Tensor:
    """All of it unpacked, (N, K), rows in the model's order: for what is no product."""
    rows = unpacked(matrix, 0, matrix.shape[0], dtype)
    if not matrix.heads:
        return rows
    pairs = rows.view(matrix.heads, -1, 2, matrix.shape[1])
    return pairs.transpose(1, 2).reshape(matrix.shape)  # the only copy: what stays in memory is made here


def head_order(matrix: PackedMatrix, out: torch.Tensor) -> torch.Tensor:
    """out (R, N) of rows as they lie -> in the model's order: within each head, first halves before second halves."""
    if not matrix.heads:
        return out
    half = out.shape[1] // matrix.heads // 2
    return out.reshape(len(out), matrix.heads, half, 2).transpose(2, 3).reshape(out.shape)
