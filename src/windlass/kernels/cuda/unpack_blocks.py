"""Windlass's own blocks to plain numbers, where a plain product is the faster one or no product is wanted.

Legend: N rows, K columns, Bn and Bk blocks along them; words, pairs and units as in block_codes.py.
"""

import torch
import triton
import triton.language as tl

from windlass.kernels.cuda.block_codes import PAIRS, level, of_row, row_curve

STRIPS, BLOCKS = 2, 2
"""Of a program's tile."""


@triton.jit
def _number(
    codes: tl.tensor, scales: tl.tensor, offsets: tl.tensor, b: tl.tensor, c: tl.tensor,
    E: tl.constexpr, C: tl.constexpr, BITS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    return level(codes, b, c, E, C, BITS) * of_row(scales, E) + of_row(offsets, E)


@triton.jit
def _row_numbers(
    codes: tl.tensor, scales: tl.tensor, offsets: tl.tensor, E: tl.constexpr, BITS: tl.constexpr
) -> tl.tensor:
    """words (pairs, units) -> the numbers of one row of each pair, (pairs, columns) in order."""
    b, c = row_curve(offsets, E)
    first = _number(codes, scales, offsets, b, c, E, 0, BITS)
    second = _number(codes, scales, offsets, b, c, E, 1, BITS)
    if BITS == 4:
        third = _number(codes, scales, offsets, b, c, E, 2, BITS)
        fourth = _number(codes, scales, offsets, b, c, E, 3, BITS)
        numbers = tl.join(tl.join(first, third), tl.join(second, fourth))  # (pairs, units, 2, 2)
    else:
        numbers = tl.join(first, second)
    return tl.reshape(numbers, (codes.shape[0], codes.shape[1] * (16 // BITS)))


@triton.jit
def _unpack_kernel(
    words: tl.tensor, out: tl.tensor, N: tl.tensor, K: tl.tensor, block_columns: tl.tensor,
    BITS: tl.constexpr, STRIPS: tl.constexpr, BLOCKS: tl.constexpr,
) -> None:  # fmt: skip
    UNITS: tl.constexpr = 4 * BITS
    CODES: tl.constexpr = 32 * BITS
    WORDS: tl.constexpr = CODES + 2 * PAIRS
    pair = tl.arange(0, STRIPS * PAIRS)
    strip = tl.program_id(1) * STRIPS + pair // PAIRS
    unit = tl.arange(0, BLOCKS * UNITS)
    block = tl.program_id(0) * BLOCKS + unit // UNITS
    here = (words + strip.to(tl.int64) * block_columns * WORDS + pair % PAIRS)[:, None] + (block * WORDS)[None, :]
    there = (strip * 16 < N)[:, None] & (block < block_columns)[None, :]
    codes = tl.load(here + (unit % UNITS * PAIRS)[None, :], mask=there, other=0)
    scales = tl.load(here + CODES, mask=there, other=0)
    offsets = tl.load(here + CODES + PAIRS, mask=there, other=0)
    row = (tl.program_id(1) * STRIPS * PAIRS + pair)[:, None] * 2
    column = (tl.program_id(0) * BLOCKS * 64 + tl.arange(0, BLOCKS * 64))[None, :]
    target = out + row.to(tl.int64) * K + column
    even = _row_numbers(codes, scales, offsets, 0, BITS).to(out.dtype.element_ty)
    tl.store(target, even, mask=(row < N) & (column < K))
    odd = _row_numbers(codes, scales, offsets, 1, BITS).to(out.dtype.element_ty)
    tl.store(target + K, odd, mask=(row + 1 < N) & (column < K))


def unpack_blocks(words: torch.Tensor, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """words int32 (Bn, Bk, words of a block) -> the matrix (N, K) = `shape` in `dtype`, made in float32 and rounded."""
    (rows, columns), (strips, block_columns, block_words) = shape, words.shape
    assert words.dtype == torch.int32 and words.is_contiguous() and strips * 16 >= rows
    out = torch.empty(rows, columns, dtype=dtype, device=words.device)
    grid = (-(-block_columns // BLOCKS), -(-rows // (16 * STRIPS)))
    _unpack_kernel[grid](
        words, out, rows, columns, block_columns, BITS=(block_words - 16) // 32, STRIPS=STRIPS, BLOCKS=BLOCKS,
        num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return out
