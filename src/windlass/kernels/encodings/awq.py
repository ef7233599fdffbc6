"""AWQ, layout "gemm": words of eight codes of 4 bits along N. See facts/formats/awq.py for the tensors.

The half bytes of a word, lowest first, hold columns 0, 2, 4, 6, 1, 3, 5, 7 of its eight.

Legend: N rows, K columns, G groups of g columns, n rows asked for, W words that hold them.
"""

from collections.abc import Mapping

import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings.strips import strips

PER_WORD = 8
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
# Where in a word a column begins.
SHIFTS = tuple(4 * ORDER.index(column) for column in range(PER_WORD))


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`, made in float32 and then rounded.

    `parts`: "codes" int32 (K, N / 8), "zeros" int32 (G, N / 8), "scales" (G, N). Only the words of those rows are read.
    """
    first, last = start // PER_WORD, -(-stop // PER_WORD)
    rows, size, device = slice(start - first * PER_WORD, stop - first * PER_WORD), packing.group, parts["codes"].device
    zeros = _columns(parts["zeros"][:, first:last])[:, None, rows]
    scales = parts["scales"][:, None, start:stop].float()
    out = torch.empty(shape[1], stop - start, dtype=dtype, device=device)
    for top, end in strips(0, shape[1], stop - start, size, device):
        codes = _columns(parts["codes"][top:end, first:last])[:, rows].unflatten(0, (-1, size))  # (groups, g, n)
        groups = slice(top // size, end // size)
        out[top:end] = (codes - zeros[groups]).float().mul_(scales[groups]).flatten(0, 1)
    return out.T


def _columns(words: torch.Tensor) -> torch.Tensor:
    """words int32 (k, W) -> codes int32 (k, 8 W), in the order of columns."""
    shifts = torch.tensor(SHIFTS, dtype=torch.int32, device=words.device)
    return ((words[..., None] >> shifts) & 15).flatten(1)
