"""Numbers of 4 bits (E2M1) that share an exponent by 32. See facts/formats/mxfp4.py.

Legend: N rows, K columns, n rows asked for.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from windlass.facts.packing import Packing

NUMBERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
BIAS = 127


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`; exact wherever `dtype` is wide enough.

    `parts`: "codes" uint8 (N, K / 32, 16), the low half of a byte first; "scales" uint8 (N, K / 32).
    """
    raw = parts["codes"][start:stop]
    numbers = F.embedding(raw.int(), _pairs().to(raw.device)).flatten(2)  # (n, K / 32, 32)
    factors = _powers().to(raw.device)[parts["scales"][start:stop].int()]
    return (numbers * factors[..., None]).flatten(1).to(dtype)


def _pairs() -> torch.Tensor:
    """float32 (256, 2): the two numbers of every byte."""
    table, byte = torch.tensor(NUMBERS), torch.arange(256)
    return torch.stack([table[byte & 15], table[byte >> 4]], dim=1)


def _powers() -> torch.Tensor:
    """float32 (256,): the factor of every exponent."""
    return torch.ldexp(torch.ones(256), torch.arange(256) - BIAS)
