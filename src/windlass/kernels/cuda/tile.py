"""How a kernel divides its work over the programs of a device, and which ways are worth trying for a product.

Legend: N rows and K columns of the matrix, M rows of activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from windlass.units import MIB

ROW_PROGRAMS, TILE_PROGRAMS = 4, 3
"""Programs for each multiprocessor that keep it busy: of `one_row`, and of `many_rows`."""
SCRATCH_BYTES = 32 * MIB
"""At most so much for results of shares of the columns before they are added up."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Strips of 16 rows, and blocks of 64 columns or rows of activations, that a program takes at once.

    `shares` is into how many parts the columns are divided among programs; `warps` and `stages` are Triton's.
    """

    strips: int
    blocks: int = 1
    x_rows: int = 1
    shares: int = 1
    warps: int = 4
    stages: int = 3


def row_tiles(shape: tuple[int, int], multiprocessors: int) -> list[Tile]:
    """For one row of activations and a matrix (N, K) of `shape`; the one that is most likely best comes first."""
    tiles = (Tile(2, 4), Tile(2, 8, warps=8), Tile(1, 8), Tile(4, 4, warps=8))
    return [_shared(tile, shape, 1, ROW_PROGRAMS * multiprocessors, tile.blocks) for tile in tiles]


def product_tiles(shape: tuple[int, int], count: int, itemsize: int, multiprocessors: int) -> list[Tile]:
    """For M = `count` rows of activations whose numbers take `itemsize` bytes."""
    return [_shared(tile, shape, count, TILE_PROGRAMS * multiprocessors, 4) for tile in _by_rows(count, itemsize)]


def _by_rows(count: int, itemsize: int) -> Sequence[Tile]:
    """Warps that divide a tile's rows of the matrix, so that none is unpacked twice."""
    if itemsize == 4:  # products without tensor cores hold more in registers
        return Tile(4, x_rows=16), Tile(2, x_rows=16)
    if count > 32:
        return Tile(8, x_rows=64, stages=4), Tile(16, x_rows=64, warps=8)
    x_rows = 16 if count <= 16 else 32
    return (
        Tile(8, x_rows=x_rows, stages=4), Tile(4, x_rows=x_rows, warps=2, stages=4), Tile(8, x_rows=x_rows, stages=6),
        Tile(16, x_rows=x_rows, warps=8),
    )  # fmt: skip


def _shared(tile: Tile, shape: tuple[int, int], count: int, wanted: int, least_blocks: int) -> Tile:
    """Divides the columns until there are as many programs as wanted, each with some blocks of columns."""
    rows, columns = shape
    programs = -(-rows // (16 * tile.strips)) * -(-count // tile.x_rows)
    room = SCRATCH_BYTES // (4 * rows * count)
    most = max(1, min(-(-columns // 64) // least_blocks, room))
    return replace(tile, shares=min(most, -(-wanted // programs)))
