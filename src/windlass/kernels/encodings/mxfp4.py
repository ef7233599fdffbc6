"""Numbers of 4 bits (E2M1) that share an exponent by 32. See facts/formats/mxfp4.py.

Legend: N rows, K columns, n rows asked for.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from windlass.facts.packing import Packing
from windlass.kernels.encodings.strips import strips

NUMBERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
BIAS = 127


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`; exact wherever `dtype` is wide enough.

    `parts`: "codes" uint8 (N, K / 32, 16), the low half of a byte first; "scales" uint8 (N, K / 32).
    """
    device = parts["codes"].device
    pairs, powers = _pairs().to(device), _powers().to(device)
    out = torch.empty(stop - start, shape[1], dtype=dtype, device=device)
    for top, end in strips(start, stop, shape[1], 1, device):
        numbers = F.embedding(parts["codes"][top:end].int(), pairs).flatten(2)  # (n, K / 32, 32)
        numbers *= powers[parts["scales"][top:end].int()][..., None]
        out[top - start : end - start] = numbers.flatten(1)
    return out


def _pairs() -> torch.Tensor:
    """float32 (256, 2): the two numbers of every byte."""
    table, byte = torch.tensor(NUMBERS), torch.arange(256)
    return torch.stack([table[byte & 15], table[byte >> 4]], dim=1)


def _powers() -> torch.Tensor:
    """float32 (256,): the factor of every exponent."""
    return torch.ldexp(torch.ones(256), torch.arange(256) - BIAS)
