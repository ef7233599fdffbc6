"""AWQ, layout "gemm": words of eight codes of 4 bits along N. See facts/formats/awq.py for the tensors.

The half byte i of a word, lowest first, holds column ORDER[i] of its eight.

Legend: N rows, K columns, G groups of g columns, n rows asked for, W words that hold them.
"""

from collections.abc import Mapping

import torch

from windlass.facts.packing import Packing

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
# Which half byte holds a column.
PLACES = tuple(ORDER.index(column) for column in range(len(ORDER)))


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`, made in float32 and then rounded.

    `parts`: "codes" int32 (K, N / 8), "zeros" int32 (G, N / 8), "scales" (G, N). Only the words of those rows are read.
    """
    per_word = len(ORDER)
    first, last = start // per_word, -(-stop // per_word)
    rows = slice(start - first * per_word, stop - first * per_word)
    codes = _columns(parts["codes"][:, first:last])[:, rows].unflatten(0, (-1, packing.group))  # (G, g, n)
    zeros = _columns(parts["zeros"][:, first:last])[:, rows]
    scales = parts["scales"][:, start:stop].float()
    numbers = (codes - zeros[:, None]).float() * scales[:, None]
    return numbers.flatten(0, 1).T.to(dtype)


def _columns(words: torch.Tensor) -> torch.Tensor:
    """words int32 (k, W) -> codes int8 (k, 8 W), in the order of columns."""
    raw = words.contiguous().view(torch.uint8)
    halves = torch.stack([raw & 15, raw >> 4], dim=-1).view(torch.int8).view(len(raw), -1, len(PLACES))
    return halves[..., PLACES].flatten(1)
