"""Numbers of 4 bits (E2M1) that share an exponent by 32. See facts/formats/mxfp4.py.

Legend: N rows, K columns, n rows asked for.
"""

from collections.abc import Mapping

import torch

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
    table = torch.tensor(NUMBERS, device=raw.device)
    numbers = table[torch.stack([raw & 15, raw >> 4], dim=-1).flatten(2).int()]  # (n, K / 32, 32)
    exponents = parts["scales"][start:stop].int() - BIAS
    return torch.ldexp(numbers, exponents[..., None]).flatten(1).to(dtype)
