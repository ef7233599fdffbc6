"""Products with packed matrices: by the native kernel, or unpacked a tile at a time and multiplied at once.

Legend: R rows of activations, N outputs, K inputs, n outputs of a tile.
"""

import torch
import torch.nn.functional as F

from windlass.kernels.backend import PackedChoice, choose_packed
from windlass.kernels.cuda.product import device_linear, device_multiplies
from windlass.kernels.encodings.table import unpack_rows
from windlass.kernels.native.product import ProductLibrary, native_product, product_library
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
    choice = choice or choose_packed(matrix.packing.name, matrix.device)
    library = product_library() if choice.name == "fused" else None
    by_kernel = isinstance(library, ProductLibrary)
    out = native_product(library, matrix, flat) if by_kernel else _by_tiles(matrix, flat)
    return head_order(matrix, out).view(*x.shape[:-1], rows)


def _by_tiles(matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
    """x (R, K) -> (R, N)."""
    rows, columns = matrix.shape
    step = max(TILE_ROWS, TILE_BYTES // (columns * x.dtype.itemsize) // TILE_ROWS * TILE_ROWS)
    out = x.new_empty(len(x), rows)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        out[:, start:stop] = F.linear(x, unpack_rows(matrix, start, stop, x.dtype))
    return out


def dense(matrix: PackedMatrix, dtype: torch.dtype) -> torch.Tensor:
    """All of it unpacked, (N, K), rows in the model's order: for what is no product."""
    return head_order(matrix, unpack_rows(matrix, 0, matrix.shape[0], dtype).T).T.contiguous()


def head_order(matrix: PackedMatrix, out: torch.Tensor) -> torch.Tensor:
    """out (R, N) of rows as they lie -> in the model's order: within each head, first halves before second halves."""
    if not matrix.heads:
        return out
    half = out.shape[1] // matrix.heads // 2
    return out.reshape(len(out), matrix.heads, half, 2).transpose(2, 3).reshape(out.shape)
