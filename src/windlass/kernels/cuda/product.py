"""Products with packed matrices on a CUDA device.

Windlass's own blocks are multiplied as they lie by our kernels. Many rows of activations make it cheaper to unpack a
tile and leave the product to torch, which knows the device best; so do other packings, whatever the rows. A kernel that
cannot be compiled or run here is replaced by plain torch, and that is said once.

Legend: M rows of activations, N outputs, K inputs.
"""

from collections.abc import Callable
from functools import cache, partial

import torch

from windlass.facts.own_checkpoint import ROWS
from windlass.kernels.cuda.backend import DeviceKernels, device_kernels
from windlass.kernels.cuda.tile import Tile, product_tiles, row_tiles
from windlass.kernels.cuda.timing import seconds
from windlass.kernels.cuda.tuning import Tuning
from windlass.kernels.encodings.blocks import block_shape
from windlass.kernels.encodings.table import unpack_rows
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.settings import cache_folder
from windlass.units import MIB

TYPES = (torch.float32, torch.bfloat16, torch.float16)
UNPACKED_ROWS = {4: 128, 2: 256}
"""From so many rows on, by bytes of a number, tiles are unpacked for torch: float32 has no tensor cores to feed.

On an H200 256 rows times (14336, 4096) in int4 took 0.19 ms as they lie; unpacking took 0.12 and torch's product 0.05.
"""
UNPACKED_BYTES = 64 * MIB
"""Of unpacked numbers at a time."""
OWN = {"int4", "int8"}
"""Packings that are multiplied as they lie."""


def device_multiplies(x: torch.Tensor) -> bool:
    """Whether products with `x` are for `device_linear`, whatever the packing."""
    return x.device.type == "cuda" and x.dtype in TYPES and isinstance(device_kernels(), DeviceKernels)


def device_linear(matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
    """x (..., K) times the transpose of the matrix (N, K), rows as they lie -> (..., N), in the dtype of x."""
    flat = x.reshape(-1, matrix.shape[1]).contiguous()
    with torch.cuda.device(x.device):
        return product_on(x.device).linear(matrix, flat).view(*x.shape[:-1], matrix.shape[0])


class Product:
    """Products on one device of so many multiprocessors."""

    def __init__(self, kernels: DeviceKernels, tuning: Tuning, multiprocessors: int) -> None:
        self._launchers, self._guard = kernels.launchers, kernels.guard
        self._tuning, self._multiprocessors = tuning, multiprocessors
        # By kind of product: choosing anew takes the host longer than a small product takes the device.
        self._tiles: dict[tuple[str, torch.dtype, tuple[int, int], int], Tile] = {}

    def linear(self, matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
        """x (M, K) contiguous -> (M, N), rows as they lie."""
        own = matrix.packing.name in OWN and 0 < len(x) < UNPACKED_ROWS[x.dtype.itemsize] and _readable(matrix)
        if not own:
            return self._by_tiles(matrix, x)
        what = f"the product of {'one row' if len(x) == 1 else 'rows'} with {matrix.packing.name} in {x.dtype}"
        return self._guard.tried(what, lambda: self._fused(matrix, x), lambda: self._by_tiles(matrix, x))

    def unpack(self, matrix: PackedMatrix, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """Rows start .. stop, `start` a multiple of 16 -> (stop - start, K) in `dtype`; the same numbers as torch's."""
        name = matrix.packing.name
        if not (name in OWN | {"awq"} | self._launchers.GGUF_TYPES and _readable(matrix)):
            return unpack_rows(matrix, start, stop, dtype)
        kernel, plain = (partial(unpack, matrix, start, stop, dtype) for unpack in (self._by_kernel, unpack_rows))
        return self._guard.tried(f"the unpacking of {name} to {dtype}", kernel, plain)

    def _fused(self, matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
        words, shape, count = _words(matrix), matrix.shape, len(x)
        launch = self._launchers.one_row if count == 1 else self._launchers.many_rows
        kind = (matrix.packing.name, x.dtype, shape, count)
        tile = self._tiles.get(kind)
        if tile is None:
            tile = self._tiles[kind] = self._best_tile(matrix, x, lambda tile: launch(words, x, shape, tile))
        return launch(words, x, shape, tile)

    def _best_tile(self, matrix: PackedMatrix, x: torch.Tensor, run: Callable[[Tile], object]) -> Tile:
        shape, count = matrix.shape, len(x)
        if count == 1:
            tiles = row_tiles(shape, self._multiprocessors)
        else:
            tiles = product_tiles(shape, count, x.dtype.itemsize, self._multiprocessors)
        sizes = (str((size - 1).bit_length()) for size in (*shape, count))
        return self._tuning.best(" ".join([matrix.packing.name, str(x.dtype), *sizes]), tiles, run)

    def _by_tiles(self, matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
        rows, columns = matrix.shape
        step = max(ROWS, UNPACKED_BYTES // (columns * x.dtype.itemsize) // ROWS * ROWS)
        if rows <= step:
            return x @ self.unpack(matrix, 0, rows, x.dtype).T
        out = x.new_empty(len(x), rows)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            out[:, start:stop] = x @ self.unpack(matrix, start, stop, x.dtype).T
        return out

    def _by_kernel(self, matrix: PackedMatrix, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        if matrix.packing.name == "awq":
            codes, zeros, scales = (matrix.parts[role] for role in ("codes", "zeros", "scales"))
            return self._launchers.unpack_awq(codes, zeros, scales, start, stop, dtype)
        shape = (stop - start, matrix.shape[1])
        if matrix.packing.name in OWN:
            return self._launchers.unpack_blocks(_words(matrix)[start // ROWS : -(-stop // ROWS)], shape, dtype)
        data = matrix.parts["blocks"].view(torch.uint8).view(matrix.shape[0], -1)[start:stop]
        return self._launchers.unpack_gguf(matrix.packing.name, data, shape, dtype)


@cache
def product_on(device: torch.device) -> Product:
    """The one product of a device. What is tuned is kept by the device's name and Triton's version."""
    kernels, properties = device_kernels(), torch.cuda.get_device_properties(device)
    assert isinstance(kernels, DeviceKernels), "no device kernels: ask `device_multiplies` first"
    path = cache_folder() / "cuda" / f"{'-'.join([*properties.name.split(), kernels.version])}.json"
    tuning = Tuning(path, seconds, kernels.launchers.FAILURES)
    return Product(kernels, tuning, properties.multi_processor_count)


def _readable(matrix: PackedMatrix) -> bool:
    """Whether the bytes lie where a kernel can read them as the words that they are made of."""
    step = 4 if matrix.packing.name in OWN else 2
    return all(
        part.is_contiguous() and part.storage_offset() * part.itemsize % step == 0 and part.data_ptr() % step == 0
        for part in matrix.parts.values()
    )


def _words(matrix: PackedMatrix) -> torch.Tensor:
    """Own blocks as int32 (Bn, Bk, words of a block)."""
    return matrix.parts["blocks"].view(block_shape(matrix.packing, *matrix.shape)).view(torch.int32)
