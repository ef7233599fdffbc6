"""One row of activations times a matrix of Windlass's own blocks: each word is read once, and nothing is unpacked.

So few products are bound by the bytes read. A program takes some rows of the matrix and a share of its columns, so that
a matrix of few rows keeps the whole device busy too; shares are added up in a fixed order afterwards.

Legend: N rows, K columns, Bn and Bk blocks along them, S shares of the columns. A tile has pairs of rows by blocks by
units of columns (see block_codes.py).
"""

import torch
import triton
import triton.language as tl

from windlass.kernels.cuda.block_codes import PAIRS, level, of_row, row_curve
from windlass.kernels.cuda.tile import Tile


@triton.jit
def _one_row_kernel(
    words: tl.tensor, x: tl.tensor, out: tl.tensor,
    N: tl.tensor, K: tl.tensor, block_columns: tl.tensor, share: tl.tensor,
    BITS: tl.constexpr, STRIPS: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    UNITS: tl.constexpr = 4 * BITS
    WIDTH: tl.constexpr = 64 // UNITS
    CODES: tl.constexpr = 32 * BITS
    WORDS: tl.constexpr = CODES + 2 * PAIRS
    pair = tl.arange(0, STRIPS * PAIRS)[:, None, None]
    unit = tl.arange(0, UNITS)[None, None, :]
    strip = tl.program_id(0) * STRIPS + pair // PAIRS
    first = tl.program_id(1) * share
    stop = tl.minimum(first + share, block_columns)
    inside = strip * 16 < N
    row_words = words + strip.to(tl.int64) * block_columns * WORDS + pair % PAIRS
    even = tl.zeros((STRIPS * PAIRS, BLOCKS, UNITS), tl.float32)
    odd = tl.zeros((STRIPS * PAIRS, BLOCKS, UNITS), tl.float32)
    for start in tl.range(first, stop, BLOCKS, num_stages=STAGES):
        block = start + tl.arange(0, BLOCKS)[None, :, None]
        there = inside & (block < stop)
        here = row_words + block * WORDS
        codes = tl.load(here + unit * PAIRS, mask=there, other=0)
        scales = tl.load(here + CODES, mask=there, other=0)
        offsets = tl.load(here + CODES + PAIRS, mask=there, other=0)
        even_b, even_c = row_curve(offsets, 0)
        odd_b, odd_c = row_curve(offsets, 1)
        even_sum = tl.zeros_like(even)
        odd_sum = tl.zeros_like(odd)
        x_sum = tl.zeros((1, BLOCKS, UNITS), tl.float32)
        for c in tl.static_range(WIDTH):
            column = block * 64 + unit * WIDTH + c
            x_c = tl.load(x + column, mask=(column < K) & (block < stop), other=0.0).to(tl.float32)
            x_sum += x_c
            even_sum += level(codes, even_b, even_c, 0, c, BITS) * x_c
            odd_sum += level(codes, odd_b, odd_c, 1, c, BITS) * x_c
        even += even_sum * of_row(scales, 0) + x_sum * of_row(offsets, 0)
        odd += odd_sum * of_row(scales, 1) + x_sum * of_row(offsets, 1)
    row = (tl.program_id(0) * STRIPS * PAIRS + tl.arange(0, STRIPS * PAIRS)) * 2
    target = out + tl.program_id(1).to(tl.int64) * N + row
    tl.store(target, tl.sum(tl.sum(even, 2), 1).to(out.dtype.element_ty), mask=row < N)
    tl.store(target + 1, tl.sum(tl.sum(odd, 2), 1).to(out.dtype.element_ty), mask=row + 1 < N)


def one_row(words: torch.Tensor, x: torch.Tensor, shape: tuple[int, int], tile: Tile) -> torch.Tensor:
    """words int32 (Bn, Bk, words of a block), x (1, K) contiguous -> x times the transpose of the matrix, (1, N).

    `shape` is (N, K). Numbers are added up in float32; the result has the dtype of x.
    """
    (rows, columns), (strips, block_columns, block_words) = shape, words.shape
    assert words.dtype == torch.int32 and words.is_contiguous() and x.is_contiguous() and x.shape == (1, columns)
    bits = (block_words - 16) // 32
    shares = min(tile.shares, block_columns)
    share = -(-block_columns // shares)
    out = x.new_empty(shares, rows, dtype=x.dtype if shares == 1 else torch.float32)
    grid = (-(-strips // tile.strips), shares)
    _one_row_kernel[grid](
        words, x, out, rows, columns, block_columns, share,
        BITS=bits, STRIPS=tile.strips, BLOCKS=tile.blocks, STAGES=tile.stages,
        num_warps=tile.warps, enable_fp_fusion=True,
    )  # fmt: skip
    return out if shares == 1 else out.sum(0, keepdim=True).to(x.dtype)
