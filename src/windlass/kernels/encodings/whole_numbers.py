"""compressed-tensors' whole numbers: "packed-int" in words along K, "plain-int" of a byte each.

See facts/formats/compressed_tensors.py.

Legend: N rows, K columns, b bits, G groups, n rows asked for.
"""

from collections.abc import Mapping

import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings.bit_stream import codes_along, words_of
from windlass.kernels.encodings.strips import strips


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`, made in float32 and then rounded.

    `parts`: "codes" int32 (N, K b / 32) with 2^(b-1) added, or int8 (N, K); "scales" (N, G) or one in all; "zeros" int8
    like the scales, or int32 (ceil(N b / 32), G), or left out; "groups" (K) where groups do not follow each other.
    """
    device, groups = parts["codes"].device, _order(parts)
    out = torch.empty(stop - start, shape[1], dtype=dtype, device=device)
    for top, end in strips(start, stop, shape[1], 1, device):
        out[top - start : end - start] = _strip(packing, parts, shape, top, end, groups)
    return out


def _strip(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    groups: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop in float32."""
    numbers = _codes(packing, parts["codes"][start:stop])[:, : shape[1]].float()
    scales = _rows(parts["scales"], shape[0], start, stop).float()  # (n or 1, G)
    if "zeros" in parts:
        numbers -= _spread(_zeros(packing, parts["zeros"], shape[0], start, stop).float(), packing, groups, shape[1])
    return numbers.mul_(_spread(scales, packing, groups, shape[1]))


def _codes(packing: Packing, stored: torch.Tensor) -> torch.Tensor:
    if stored.dtype == torch.int8:
        return stored
    return codes_along(stored, packing.bits) - (1 << packing.bits - 1)


def _zeros(packing: Packing, stored: torch.Tensor, height: int, start: int, stop: int) -> torch.Tensor:
    """Zero points of the rows -> (n or 1, G)."""
    if stored.dtype == torch.int8:
        return _rows(stored, height, start, stop)
    first, last, begins = words_of(packing.bits, start, stop)
    down = codes_along(stored[first:last].T, packing.bits).T
    return down[start - begins : stop - begins] - (1 << packing.bits - 1)


def _rows(numbers: torch.Tensor, height: int, start: int, stop: int) -> torch.Tensor:
    """Those of the rows, from numbers of `height` rows or from one for all -> (n or 1, G)."""
    return numbers.reshape(1, 1) if numbers.numel() == 1 else numbers.reshape(height, -1)[start:stop]


def _order(parts: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """The group of each column, int64 (K), or None where they follow each other: negative numbers say that too."""
    groups = parts.get("groups")
    return None if groups is None or bool((groups < 0).any()) else groups.long()


def _spread(of_groups: torch.Tensor, packing: Packing, groups: torch.Tensor | None, columns: int) -> torch.Tensor:
    """(n or 1, G), a number a group -> (n or 1, K), a number a column."""
    if groups is not None:
        return of_groups[:, groups]
    return of_groups[..., None].expand(-1, -1, packing.group).flatten(1)[:, :columns]
