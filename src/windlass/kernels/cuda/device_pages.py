"""Where a kernel finds keys and values of one layer: pages as they lie, or packed pages.

Legend: N pages, P tokens a page, H heads of keys and of values, Dk and Dv sizes of keys and values.
"""

from dataclasses import dataclass

import torch

from windlass.facts.packed_page import PackedPage
from windlass.kernels.page_store import PageStore


@dataclass(frozen=True, slots=True)
class DevicePages:
    """`bits` of a code, 0 where keys and values are plain numbers and `key_scales` and `value_scales` are not read.

    `keys` and `values` point to the first row of the first page, a row being what holds one token of one head:
    `key_row` and `value_row` elements, numbers or bytes. From a page to the next it is so many elements of each tensor
    (`key_stride`, `value_stride`, `scale_stride`). `value_group` channels of a value share a scale.
    """

    keys: torch.Tensor
    values: torch.Tensor
    key_scales: torch.Tensor
    value_scales: torch.Tensor
    key_stride: int
    value_stride: int
    scale_stride: int
    heads: int
    tokens: int
    key_dim: int
    value_dim: int
    key_row: int
    value_row: int
    value_group: int
    bits: int

    @property
    def piece(self) -> int:
        """Channels of a value that share a scale and a half of the row's bytes: what is multiplied at once."""
        return min(self.value_group, self.value_row)


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """The bytes of a packed page of one layer: where its codes, scales and zeros lie.

    In order: key codes (H, P, row), from `key_scales_at` on the keys' scales and zeros (H, 2, Dk), from `values_at` on
    value codes (H, P, row), from `value_scales_at` on the values' scales and zeros (H, 2, Dv / value_group, P). Scales
    and zeros are float16; all places are even. Of 4-bit codes, byte b of a row holds channel b in its low half and
    channel `row + b` in its high half.
    """

    heads: int
    tokens: int
    key_dim: int
    value_dim: int
    bits: int
    value_group: int
    key_scales_at: int
    values_at: int
    value_scales_at: int

    def row(self, dim: int) -> int:
        """Bytes of a token's codes in one head."""
        return -(-dim * self.bits // 8)


def layout_of(page: PackedPage) -> PackedLayout:
    """Of the cache's own packed pages."""
    shape = page.shape
    return PackedLayout(
        shape.key_heads, page.tokens, shape.key_dim, shape.value_dim, page.bits, page.value_group,
        page.key_scales_at, page.values_at, page.value_scales_at,
    )  # fmt: skip


def packed_pages(packed: torch.Tensor, layout: PackedLayout) -> DevicePages:
    """`packed` uint8 (N, bytes of a page) at an even address; a page has an even number of bytes."""
    halves, nbytes = packed.view(torch.float16), packed.shape[1]
    assert packed.is_contiguous() and packed.dtype == torch.uint8
    return DevicePages(
        packed, packed[:, layout.values_at :], halves[:, layout.key_scales_at // 2 :],
        halves[:, layout.value_scales_at // 2 :], nbytes, nbytes, nbytes // 2,
        layout.heads, layout.tokens, layout.key_dim, layout.value_dim,
        layout.row(layout.key_dim), layout.row(layout.value_dim), layout.value_group, layout.bits,
    )  # fmt: skip


def stored_pages(store: PageStore) -> DevicePages:
    """Pages as they lie. Keys and values have the same number of heads."""
    keys, values = store.keys, store.values
    (_, heads, tokens, key_dim), value_dim = keys.shape, values.shape[-1]
    assert keys.is_contiguous() and values.is_contiguous() and values.shape[1] == heads
    return DevicePages(
        keys, values, keys, values, keys.stride(0), values.stride(0), 0,
        heads, tokens, key_dim, value_dim, key_dim, value_dim, value_dim, 0,
    )  # fmt: skip
