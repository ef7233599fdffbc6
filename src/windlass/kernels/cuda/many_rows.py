"""Rows of activations times a matrix of Windlass's own blocks, on the tensor cores; unpacked in registers, by tiles.

A word of a block holds columns 4 u + c (or 2 u + c) of two rows. A product does not care in which order its columns
are added up, as long as both sides agree, so column c of every unit makes one small product of its own, and even and
odd rows have a result each: nothing is shuffled between threads. The activations are laid out to suit, (rows, columns
of a unit, units), where there are many.

bfloat16 and float16 are multiplied as such, with weights rounded to that type as the plain unpacking rounds them, and
added up in float32. float32 is multiplied in full ("ieee").

Legend: N rows, K columns, Bn and Bk blocks along them, M rows of activations, S shares of the columns.
"""

import torch
import triton
import triton.language as tl

from windlass.kernels.cuda.block_codes import PAIRS, level, of_row, row_curve
from windlass.kernels.cuda.tile import Tile

ARRANGED_ROWS = 64
"""From so many rows of activations on, a copy that lets them be read in order is worth its time."""


@triton.jit
def _many_rows_kernel(
    words: tl.tensor, x: tl.tensor, out: tl.tensor,
    N: tl.tensor, K: tl.tensor, M: tl.tensor, block_columns: tl.tensor, share: tl.tensor,
    x_row_stride: tl.tensor, x_column_stride: tl.tensor, x_unit_stride: tl.tensor,
    BITS: tl.constexpr, STRIPS: tl.constexpr, X_ROWS: tl.constexpr, WHOLE: tl.constexpr,
) -> None:  # fmt: skip
    UNITS: tl.constexpr = 4 * BITS
    WIDTH: tl.constexpr = 64 // UNITS
    CODES: tl.constexpr = 32 * BITS
    WORDS: tl.constexpr = CODES + 2 * PAIRS
    pair = tl.arange(0, STRIPS * PAIRS)
    unit = tl.arange(0, UNITS)
    m = tl.program_id(0) * X_ROWS + tl.arange(0, X_ROWS)
    strip = tl.program_id(1) * STRIPS + pair // PAIRS
    first = tl.program_id(2) * share
    stop = tl.minimum(first + share, block_columns)
    inside = strip * 16 < N
    row_words = words + strip.to(tl.int64) * block_columns * WORDS + pair % PAIRS
    x_rows = x + m.to(tl.int64)[None, :] * x_row_stride
    wanted = (m < M)[None, :]
    even = tl.zeros((STRIPS * PAIRS, X_ROWS), tl.float32)
    odd = tl.zeros((STRIPS * PAIRS, X_ROWS), tl.float32)
    for block in range(first, stop):
        here = row_words + block * WORDS
        codes = tl.load(here[:, None] + unit[None, :] * PAIRS, mask=inside[:, None], other=0)
        scales = tl.load(here + CODES, mask=inside, other=0)[:, None]
        offsets = tl.load(here + CODES + PAIRS, mask=inside, other=0)[:, None]
        even_b, even_c = row_curve(offsets, 0)
        odd_b, odd_c = row_curve(offsets, 1)
        units = block * UNITS + unit
        for c in tl.static_range(WIDTH):
            there = wanted if WHOLE else wanted & (units * WIDTH + c < K)[:, None]
            x_c = tl.load(x_rows + c * x_column_stride + units[:, None] * x_unit_stride, mask=there, other=0.0)
            w = level(codes, even_b, even_c, 0, c, BITS) * of_row(scales, 0) + of_row(offsets, 0)
            even = tl.dot(w.to(x_c.dtype), x_c, even, input_precision="ieee")
            w = level(codes, odd_b, odd_c, 1, c, BITS) * of_row(scales, 1) + of_row(offsets, 1)
            odd = tl.dot(w.to(x_c.dtype), x_c, odd, input_precision="ieee")
    row = (tl.program_id(1) * STRIPS * PAIRS + pair) * 2
    result_rows = tl.program_id(2).to(tl.int64) * M + m
    target = out + result_rows[None, :] * N + row[:, None]
    tl.store(target, even.to(out.dtype.element_ty), mask=(row < N)[:, None] & wanted)
    tl.store(target + 1, odd.to(out.dtype.element_ty), mask=(row + 1 < N)[:, None] & wanted)


def many_rows(words: torch.Tensor, x: torch.Tensor, shape: tuple[int, int], tile: Tile) -> torch.Tensor:
    """words int32 (Bn, Bk, words of a block), x (M, K) contiguous -> x times the transpose of the matrix, (M, N).

    `shape` is (N, K). Numbers are added up in float32; the result has the dtype of x.
    """
    (rows, columns), (strips, block_columns, block_words), count = shape, words.shape, len(x)
    assert words.dtype == torch.int32 and words.is_contiguous() and x.is_contiguous() and x.shape[1] == columns
    bits = (block_words - 16) // 32
    shares = min(tile.shares, block_columns)
    share = -(-block_columns // shares)
    out = x.new_empty(shares, count, rows, dtype=x.dtype if shares == 1 else torch.float32)
    arranged, strides = _arranged(x, 16 // bits)
    # Programs that read the same rows of the matrix follow each other, so that these come from the device's cache.
    grid = (-(-count // tile.x_rows), -(-strips // tile.strips), shares)
    _many_rows_kernel[grid](
        words, arranged, out, rows, columns, count, block_columns, share, *strides,
        BITS=bits, STRIPS=tile.strips, X_ROWS=tile.x_rows, WHOLE=columns % 64 == 0,
        num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True,
    )  # fmt: skip
    return out[0] if shares == 1 else out.sum(0).to(x.dtype)


def _arranged(x: torch.Tensor, width: int) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """x (M, K), so that the columns c of all units of `width` columns lie together, or as it is where that would not
    pay; with it how far it is from a row to the next, from c to the next and from a unit to the next."""
    count, columns = x.shape
    if count < ARRANGED_ROWS or columns % width:
        return x, (columns, 1, width)
    units = columns // width
    return x.view(count, units, width).transpose(1, 2).contiguous(), (columns, units, 1)
