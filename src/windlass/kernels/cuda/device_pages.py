"""Where a kernel finds keys and values of one layer: pages as they lie, or packed pages.

Legend: N pages, P tokens a page, Dk and Dv sizes of keys and values.
"""

from dataclasses import dataclass

import torch

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


def stored_pages(store: PageStore) -> DevicePages:
    """Pages as they lie. Keys and values have the same number of heads."""
    keys, values = store.keys, store.values
    (_, heads, tokens, key_dim), value_dim = keys.shape, values.shape[-1]
    assert keys.is_contiguous() and values.is_contiguous() and values.shape[1] == heads
    return DevicePages(
        keys, values, keys, values, keys.stride(0), values.stride(0), 0,
        heads, tokens, key_dim, value_dim, key_dim, value_dim, value_dim, 0,
    )  # fmt: skip
