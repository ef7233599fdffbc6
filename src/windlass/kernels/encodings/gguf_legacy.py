"""GGUF's first block types: 32 numbers with one scale, and in the types that end in 1 a smallest number as well.

A block begins with its scale d, float16; then m, float16, in Q4_1 and Q5_1; then in Q5 the fifth bits of all 32 codes;
then the codes: of Q8_0 signed bytes, of the others four bits, byte i holding those of numbers i and i + 16.

    Q4_0  d (code - 8)      Q5_0  d (code - 16)      Q8_0  d code      Q4_1, Q5_1  d code + m

Legend: B blocks.
"""

import torch

from windlass.kernels.encodings.gguf_fields import halves, signed, spread


def q4_0(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 18) -> float32 (B, 32)."""
    return halves(blocks[:, :2]) * signed(spread(blocks[:, 2:], 4, 16), 8)


def q4_1(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 20) -> float32 (B, 32)."""
    return halves(blocks[:, :2]) * spread(blocks[:, 4:], 4, 16).float() + halves(blocks[:, 2:4])


def q5_0(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 22) -> float32 (B, 32)."""
    return halves(blocks[:, :2]) * signed(_five_bits(blocks[:, 2:6], blocks[:, 6:]), 16)


def q5_1(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 24) -> float32 (B, 32)."""
    return halves(blocks[:, :2]) * _five_bits(blocks[:, 4:8], blocks[:, 8:]).float() + halves(blocks[:, 2:4])


def q8_0(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 34) -> float32 (B, 32)."""
    return halves(blocks[:, :2]) * blocks[:, 2:].view(torch.int8).float()


def _five_bits(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Fifth bits (B, 4) and the rest (B, 16) -> codes, uint8 (B, 32)."""
    return spread(low, 4, 16) | spread(high, 1, 1) << 4
