"""Pages of keys and values into few bits and back, in plain torch: the definition of correct, on any device.

Zeros are rounded down and scales up, so that no number lies outside the codes however coarse float16 is there. All of
it is elementwise float32, so every device makes the same bytes.

Legend: n pages, P tokens a page; Hk, Hv heads and Dk, Dv sizes of keys and values; G groups of g channels of a value.
"""

import torch

from windlass.facts.packed_page import PackedPage

HALF_STEP = 2.0**-11
"""Largest relative rounding error of float16."""
SMALLEST_HALF = 2.0**-24
LARGEST_HALF = 65504.0


def pack_pages(key: torch.Tensor, value: torch.Tensor, page: PackedPage) -> torch.Tensor:
    """Full pages key (n, Hk, P, Dk) and value (n, Hv, P, Dv) -> (n, page.nbytes) uint8."""
    packed = torch.zeros(key.shape[0], page.nbytes, dtype=torch.uint8, device=key.device)
    scale, zero, codes = _coded(key.float(), 2, page.levels)
    key_codes(packed, page).copy_(_joined(codes, page))
    key_scales(packed, page).copy_(torch.cat([scale, zero], dim=2))
    grouped = value.float().unflatten(-1, (page.value_groups, page.value_group))  # (n, Hv, P, G, g)
    scale, zero, codes = _coded(grouped, 4, page.levels)
    value_codes(packed, page).copy_(_joined(codes.flatten(3), page))
    value_scales(packed, page).copy_(torch.stack([scale[..., 0], zero[..., 0]], dim=2).transpose(3, 4))
    return packed


def unpack_keys(packed: torch.Tensor, page: PackedPage, dtype: torch.dtype) -> torch.Tensor:
    """(n, page.nbytes) -> key (n, Hk, P, Dk)."""
    scale, zero = key_scales(packed, page).float().split(1, dim=2)  # (n, Hk, 1, Dk)
    codes = _parted(key_codes(packed, page), page.shape.key_dim, page)
    return codes.mul_(scale).add_(zero).to(dtype)


def unpack_values(packed: torch.Tensor, page: PackedPage, dtype: torch.dtype) -> torch.Tensor:
    """(n, page.nbytes) -> value (n, Hv, P, Dv)."""
    scales = value_scales(packed, page).float().transpose(3, 4)  # (n, Hv, 2, P, G)
    codes = _parted(value_codes(packed, page), page.shape.value_dim, page).unflatten(-1, (page.value_groups, -1))
    return codes.mul_(scales[:, :, 0, ..., None]).add_(scales[:, :, 1, ..., None]).flatten(3).to(dtype)


def key_codes(packed: torch.Tensor, page: PackedPage) -> torch.Tensor:
    """The part (n, Hk, P, row) of packed pages."""
    heads, size = page.shape.key_heads, page.tokens * page.key_row
    return packed[:, : heads * size].unflatten(1, (heads, page.tokens, page.key_row))


def key_scales(packed: torch.Tensor, page: PackedPage) -> torch.Tensor:
    """The part (n, Hk, 2, Dk) of packed pages: scales, then zeros; float16."""
    part = packed[:, page.key_scales_at : page.values_at].view(torch.float16)
    return part.unflatten(1, (page.shape.key_heads, 2, page.shape.key_dim))


def value_codes(packed: torch.Tensor, page: PackedPage) -> torch.Tensor:
    """The part (n, Hv, P, row) of packed pages."""
    heads, size = page.shape.value_heads, page.tokens * page.value_row
    part = packed[:, page.values_at : page.values_at + heads * size]
    return part.unflatten(1, (heads, page.tokens, page.value_row))


def value_scales(packed: torch.Tensor, page: PackedPage) -> torch.Tensor:
    """The part (n, Hv, 2, G, P) of packed pages: scales, then zeros; float16."""
    sizes = (page.shape.value_heads, 2, page.value_groups, page.tokens)
    nbytes = 2 * sizes[0] * sizes[1] * sizes[2] * sizes[3]
    return packed[:, page.value_scales_at : page.value_scales_at + nbytes].view(torch.float16).unflatten(1, sizes)


def _coded(numbers: torch.Tensor, dim: int, levels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scale and zero along `dim` (kept, of size 1), float16, and the codes of float32 `numbers`, uint8."""
    low, high = numbers.aminmax(dim=dim, keepdim=True)
    zero = _half(low - low.abs() * HALF_STEP - SMALLEST_HALF)
    scale = _half((high - zero.float()) / levels * (1 + 2 * HALF_STEP) + SMALLEST_HALF)
    codes = ((numbers - zero.float()) / scale.float()).round_().clamp_(0, levels)
    return scale, zero, codes.to(torch.uint8)


def _half(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.clamp(-LARGEST_HALF, LARGEST_HALF).to(torch.float16)


def _joined(codes: torch.Tensor, page: PackedPage) -> torch.Tensor:
    """Codes (..., D) uint8 -> rows of bytes."""
    if page.bits == 8:
        return codes
    row = -(-codes.shape[-1] // 2)
    joined = codes[..., :row].clone()
    joined[..., : codes.shape[-1] - row] |= codes[..., row:] << 4
    return joined


def _parted(rows: torch.Tensor, dim: int, page: PackedPage) -> torch.Tensor:
    """Rows of bytes -> codes (..., dim), float32."""
    if page.bits == 8:
        return rows.float()
    return torch.cat([(rows & 15).float(), (rows >> 4).float()], dim=-1)[..., :dim]
