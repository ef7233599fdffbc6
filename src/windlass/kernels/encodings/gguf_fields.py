"""Numbers taken out of the bytes of GGUF's blocks: half-precision numbers, and codes of a few bits.

Legend: B blocks.
"""

import torch


def halves(field: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 2 n), n numbers of float16 -> float32 (B, n). The bytes may lie at any address."""
    return field.clone(memory_format=torch.contiguous_format).view(torch.float16).float()


def spread(field: torch.Tensor, bits: int, width: int) -> torch.Tensor:
    """Codes of `bits` bits, uint8: a run of `width` bytes holds the lowest codes of all its bytes first, then the next.

    field (B, m) -> (B, m * 8 / bits), with m a multiple of `width`.
    """
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=field.device)[:, None]
    runs = field.reshape(field.shape[0], -1, 1, width)
    return ((runs >> shifts) & (2**bits - 1)).reshape(field.shape[0], -1)


def signed(codes: torch.Tensor, zero: int) -> torch.Tensor:
    """uint8 codes of at most 7 bits -> float32, less `zero`."""
    return (codes.to(torch.int8) - zero).float()
