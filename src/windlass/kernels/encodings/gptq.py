"""GPTQ: streams of bits down K, with groups that may be in any order (act-order). See facts/formats/gptq.py.

Legend: N rows, K columns, b bits, G groups, n rows asked for.
"""

from collections.abc import Mapping

import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings.bit_stream import codes_along, codes_down, words_of


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`, made in float32 and then rounded.

    `parts`: "codes" int32 (K b / 32, N), "zeros" int32 (G, N b / 32), "scales" (G, N), "groups" (K) or left out. Zero
    points wrap around: one that was 0 is stored as 2^b - 1 where they are stored less one.
    """
    codes = codes_down(parts["codes"][:, start:stop], packing.bits)  # (K, n)
    first, last, begins = words_of(packing.bits, start, stop)
    stored = codes_along(parts["zeros"][:, first:last], packing.bits)[:, start - begins : stop - begins]
    zeros = (stored + int(packing.option("zero_shift"))) & ((1 << packing.bits) - 1)
    groups = _groups(packing, parts, shape[1])
    codes -= zeros[groups]
    return codes.float().mul_(parts["scales"][:, start:stop].float()[groups]).T.to(dtype)


def _groups(packing: Packing, parts: Mapping[str, torch.Tensor], columns: int) -> torch.Tensor:
    """The group of each column, int64 (K)."""
    if "groups" in parts:
        return parts["groups"].long()
    return torch.arange(columns, device=parts["codes"].device) // packing.group
