"""GGUF's types whose four-bit codes name numbers of a table: IQ4_NL, IQ4_XS and MXFP4.

    bytes of a block, in order                                                       number
    IQ4_NL   32 numbers: d, 16 codes                                                 d LEVELS[code]
    IQ4_XS   256 numbers: d, 2 upper bits of scales, 4 lower bits of scales, codes   d (s - 32) LEVELS[code]
    MXFP4    32 numbers: exponent e, 16 codes                                        2^(e - 128) FP4[code]

d is float16. Byte i of the 16 codes of 32 numbers holds those of numbers i and i + 16. In IQ4_XS 32 numbers share a
scale of six bits. FP4 holds twice the numbers of the 4-bit float (2 bits of exponent, 1 of mantissa), hence 2^-128.

Legend: B blocks.
"""

import torch

from windlass.kernels.encodings.gguf_fields import halves, signed, spread

LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
POWERS = tuple(2.0 ** (exponent - 128) for exponent in range(256))


def iq4_nl(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 18) -> float32 (B, 32)."""
    return halves(blocks[:, :2]) * _levels(LEVELS, spread(blocks[:, 2:], 4, 16))


def iq4_xs(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 136) -> float32 (B, 256)."""
    upper = spread(blocks[:, 2:4], 2, 1)  # (B, 8)
    scales = halves(blocks[:, :2]) * signed(spread(blocks[:, 4:8], 4, 1) | upper << 4, 32)
    numbers = _levels(LEVELS, spread(blocks[:, 8:], 4, 16)).view(-1, 8, 32)
    return (scales[..., None] * numbers).view(-1, 256)


def mxfp4(blocks: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 17) -> float32 (B, 32)."""
    scales = torch.tensor(POWERS, dtype=torch.float32, device=blocks.device)[blocks[:, :1].long()]
    return scales * _levels(FP4, spread(blocks[:, 1:], 4, 16))


def _levels(table: tuple[int, ...], codes: torch.Tensor) -> torch.Tensor:
    return torch.tensor(table, dtype=torch.float32, device=codes.device)[codes.long()]
