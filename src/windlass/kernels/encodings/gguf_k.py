"""GGUF's K types: 256 numbers in groups of 16 or 32, whose scales are themselves codes times a scale of the block.

    bytes of a block, in order                                                        number
    Q2_K   16 scales and minima (4 bits each), 64 codes, d, dmin                      d s code - dmin m
    Q3_K   32 third bits, 64 codes (2 bits), 12 scales (6 bits), d                    d (s - 32) (code - 4 where third
                                                                                      bit is 0)
    Q4_K   d, dmin, 12 scales and minima (6 bits each), 128 codes                     d s code - dmin m
    Q5_K   d, dmin, 12 scales and minima, 32 fifth bits, 128 codes (4 bits)           d s code - dmin m
    Q6_K   128 codes (4 bits), 64 upper bits (2), 16 scales (8, signed), d            d s (code - 32)

d and dmin are float16. Groups have 16 numbers in Q2_K, Q3_K and Q6_K, 32 in Q4_K and Q5_K.

Legend: B blocks.
"""

import torch

from windlass.kernels.encodings.gguf_fields import halves, signed, spread

NUMBERS = 256


def q2_k(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 84) -> float32 (B, 256)."""
    both = blocks[:, :16]
    scales = halves(blocks[:, 80:82]) * (both & 15).float()
    minima = halves(blocks[:, 82:84]) * (both >> 4).float()
    return _shifted(scales, spread(blocks[:, 16:80], 2, 32), minima)


def q3_k(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 110) -> float32 (B, 256)."""
    low = spread(blocks[:, 96:104], 4, 8)  # (B, 16)
    scales = halves(blocks[:, 108:110]) * signed(low | spread(blocks[:, 104:108], 2, 4) << 4, 32)
    third = spread(blocks[:, :32], 1, 32)
    return _scaled(scales, signed(spread(blocks[:, 32:96], 2, 32) | third << 2, 4))


def q4_k(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 144) -> float32 (B, 256)."""
    return _shifted(*_scales_and_minima(blocks, spread(blocks[:, 16:], 4, 32)))


def q5_k(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 176) -> float32 (B, 256)."""
    codes = spread(blocks[:, 48:], 4, 32) | spread(blocks[:, 16:48], 1, 32) << 4
    return _shifted(*_scales_and_minima(blocks, codes))


def q6_k(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 210) -> float32 (B, 256)."""
    scales = halves(blocks[:, 208:]) * blocks[:, 192:208].view(torch.int8).float()
    codes = spread(blocks[:, :128], 4, 64) | spread(blocks[:, 128:192], 2, 32) << 4
    return _scaled(scales, signed(codes, 32))


def _scales_and_minima(blocks: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The beginning of Q4_K and Q5_K -> scales float32 (B, 8), the codes as they are, minima float32 (B, 8).

    Of 12 bytes the first four hold scales 0 to 3 in their lower six bits and the upper two bits of scales 4 to 7 above
    them; the next four do the same for the minima; the last four hold the lower four bits of scales 4 to 7 and, above,
    those of minima 4 to 7.
    """
    first, second, last = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat([first & 63, last & 15 | first >> 6 << 4], dim=1)
    minima = torch.cat([second & 63, last >> 4 | second >> 6 << 4], dim=1)
    return halves(blocks[:, :2]) * scales.float(), codes, halves(blocks[:, 2:4]) * minima.float()


def _shifted(scales: torch.Tensor, codes: torch.Tensor, minima: torch.Tensor) -> torch.Tensor:
    """codes (B, 256), scales and minima (B, groups) -> (B, 256)."""
    groups = codes.float().view(*scales.shape, -1)
    return (scales[..., None] * groups - minima[..., None]).view(-1, NUMBERS)


def _scaled(scales: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """codes (B, 256) and scales (B, groups), both float32 -> (B, 256)."""
    return (scales[..., None] * codes.view(*scales.shape, -1)).view(-1, NUMBERS)
