"""From the words of Windlass's own blocks to numbers, inside a kernel: what the kernels for "int4" and "int8" share.

A block (kernels/encodings/blocks.py) is read as int32 words. Words come in units of 8, one for each pair of rows
(2 h, 2 h + 1); a unit holds 4 columns of "int4" or 2 of "int8". After the units come 8 words of scales and 8 of
offsets, again one for each pair of rows. A word of a unit has, for row e of its pair and column c of the unit,

    int4   bits 16 e + 8 (c % 2) + 4 (c // 2), 4 of them
    int8   bits 16 e + 8 c, 8 of them, signed

A codebook's 16 numbers are computed, not looked up: three multiply-adds and a rounding to bfloat16 cost a GPU less than
a table. No number of a codebook lies near the middle of two bfloat16 numbers, so it comes out exact with fused
multiply-adds and without (tests/test_cuda_products.py).
"""

import triton
import triton.language as tl

PAIRS = tl.constexpr(8)
"""Pairs of rows in a block."""


@triton.jit
def as_float(bits: tl.tensor) -> tl.tensor:
    """int32 bits -> the float32 that has them."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def plain_code(word: tl.tensor, E: tl.constexpr, C: tl.constexpr, BITS: tl.constexpr) -> tl.tensor:
    """The code of row E and column C of each word, float32: 0 .. 15 less 7.5, or -128 .. 127.

    Bits under the exponent of 2^(23 - shift) are a float32 that is so much larger than the code: one mask and one
    subtraction, where a conversion from integers would take four times as long.
    """
    half = word if E == 0 else word >> 16
    SHIFT: tl.constexpr = 8 * (C % 2) + 4 * (C // 2) if BITS == 4 else 8 * C
    if BITS == 4:
        lifted = as_float((half & (15 << SHIFT)) | ((150 - SHIFT) << 23))
        if SHIFT == 0:  # 2^23 + 7.5 is no float32
            code = (lifted - 8388608.0) - 7.5
        else:
            code = lifted - (2.0 ** (23 - SHIFT) + 7.5)
    else:
        lifted = as_float(((half ^ (128 << SHIFT)) & (255 << SHIFT)) | ((150 - SHIFT) << 23))
        code = lifted - (2.0 ** (23 - SHIFT) + 128.0)
    return code


@triton.jit
def curve(offset_bits: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The lowest bits of offsets -> (b / 7.5^2, c / 7.5) of the codebook that they choose, float32."""
    choice = offset_bits & 3
    b = tl.where(choice == 0, 0.15 / 56.25, tl.where(choice == 3, 1.0 / 56.25, 0.7 / 56.25))
    c = tl.where(choice < 2, 0.15 / 7.5, tl.where(choice == 2, 1.0 / 7.5, 0.5 / 7.5))
    return b, c


@triton.jit
def level(
    word: tl.tensor, b: tl.tensor, c: tl.tensor, E: tl.constexpr, C: tl.constexpr, BITS: tl.constexpr
) -> tl.tensor:
    """What the code of row E and column C stands for before scale and offset, float32 that bfloat16 holds."""
    t = plain_code(word, E, C, BITS)
    if BITS == 4:
        bent = as_bits(t * t * (t * b + c) + t)
        t = as_float((bent + 0x8000) & -0x10000)
    return t


@triton.jit
def as_bits(number: tl.tensor) -> tl.tensor:
    """float32 -> its bits, int32."""
    return number.to(tl.int32, bitcast=True)


@triton.jit
def of_row(word: tl.tensor, E: tl.constexpr) -> tl.tensor:
    """The bfloat16 of row E of a word of scales or offsets, as float32."""
    return as_float(word << 16) if E == 0 else as_float(word & -0x10000)


@triton.jit
def row_curve(offset_word: tl.tensor, E: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """`curve` for row E of a word of offsets."""
    return curve(offset_word if E == 0 else offset_word >> 16)
