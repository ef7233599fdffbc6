"""GPTQ: streams of bits down K, with groups that may be in any order (act-order). See facts/formats/gptq.py.

Legend: N rows, K columns, b bits, G groups, n rows asked for.
"""

from collections.abc import Mapping

import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings.bit_stream import WORD_BITS, codes_along, codes_down, words_of
from windlass.kernels.encodings.strips import strips


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`, made in float32 and then rounded.

    `parts`: "codes" int32 (K b / 32, N), "zeros" int32 (G, N b / 32), "scales" (G, N), "groups" (K) or left out. Zero
    points wrap around: one that was 0 is stored as 2^b - 1 where they are stored less one.
    """
    first, last, begins = words_of(packing.bits, start, stop)
    stored = codes_along(parts["zeros"][:, first:last], packing.bits)[:, start - begins : stop - begins]
    zeros = (stored + int(packing.option("zero_shift"))) & ((1 << packing.bits) - 1)
    groups, scales = _groups(packing, parts, shape[1]), parts["scales"][:, start:stop].float()
    out = torch.empty(shape[1], stop - start, dtype=dtype, device=zeros.device)
    for top, end in strips(0, shape[1], stop - start, WORD_BITS, zeros.device):
        words = parts["codes"][top * packing.bits // WORD_BITS : end * packing.bits // WORD_BITS, start:stop]
        codes = codes_down(words, packing.bits)  # (k, n)
        codes -= zeros[groups[top:end]]
        out[top:end] = codes.float().mul_(scales[groups[top:end]])
    return out.T


def _groups(packing: Packing, parts: Mapping[str, torch.Tensor], columns: int) -> torch.Tensor:
    """The group of each column, int64 (K)."""
    if "groups" in parts:
        return parts["groups"].long()
    return torch.arange(columns, device=parts["codes"].device) // packing.group
