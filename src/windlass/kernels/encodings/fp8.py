"""Numbers of 8 bits (E4M3) under a grid of scales. See facts/formats/fp8.py.

Legend: N rows, K columns, r by g numbers share a scale, n rows asked for.
"""

from collections.abc import Mapping

import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings.strips import strips

# Of an exponent that is stored as a whole number.
BIAS = 127


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`, made in float32 and then rounded.

    `parts`: "codes" float8_e4m3fn (N, K), "scales" of ceil(N / r) by ceil(K / g) numbers, where r is the packing's
    option "row_block" and g its group.
    """
    down, across = int(packing.option("row_block")), packing.group
    scales = _factors(parts["scales"]).reshape(-(-shape[0] // down), -(-shape[1] // across))
    out = torch.empty(stop - start, shape[1], dtype=dtype, device=scales.device)
    for top, end in strips(start, stop, shape[1], 1, scales.device):
        numbers = parts["codes"][top:end].float()
        of_rows = scales[torch.arange(top, end, device=scales.device) // down]  # (n, blocks along K)
        numbers *= of_rows[..., None].expand(-1, -1, across).flatten(1)[:, : shape[1]]
        out[top - start : end - start] = numbers
    return out


def _factors(scales: torch.Tensor) -> torch.Tensor:
    """Scales as float32; uint8 are exponents of two."""
    return (scales.float() - BIAS).exp2() if scales.dtype == torch.uint8 else scales.float()
