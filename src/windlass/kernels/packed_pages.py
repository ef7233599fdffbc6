"""One layer's full pages of keys and values, packed into few bits: what a PageStore is for pages that go on growing.

They are unpacked next to the arithmetic: by the native kernel a tile at a time, elsewhere a block of pages at a time.

Legend: N pages, n of them, P tokens a page, m tokens of one sequence; Hk, Hv heads of keys and values; Dk, Dv sizes.
"""

from collections.abc import Sequence

import torch

from windlass.facts.packed_page import PackedPage
from windlass.kernels.page_packing import unpack_keys, unpack_values


class PackedPages:
    """`packed` (N, page.nbytes) uint8 holds the pages, each of one layer; unpacked they are of `dtype`."""

    def __init__(self, packed: torch.Tensor, page: PackedPage, dtype: torch.dtype) -> None:
        assert packed.dtype == torch.uint8 and packed.shape[1] == page.nbytes and packed.is_contiguous()
        self.packed, self.page, self.dtype = packed, page, dtype
        self.num_pages, self.page_tokens = packed.shape[0], page.tokens

    @property
    def device(self) -> torch.device:
        """Where the pages lie."""
        return self.packed.device

    @property
    def key_heads(self) -> int:
        """Hk."""
        return self.page.shape.key_heads

    @property
    def value_dim(self) -> int:
        """Dv."""
        return self.page.shape.value_dim

    @property
    def key_page_bytes(self) -> int:
        """Bytes of the keys of a page, unpacked."""
        return self.page.tokens * self.page.shape.key_heads * self.page.shape.key_dim * self.dtype.itemsize

    def key_pages(self, pages: slice | torch.Tensor) -> torch.Tensor:
        """A run or a choice of pages -> copies (n, Hk, P, Dk)."""
        return unpack_keys(self._chosen(pages), self.page, self.dtype)

    def value_pages(self, pages: slice | torch.Tensor) -> torch.Tensor:
        """A run or a choice of pages -> copies (n, Hv, P, Dv)."""
        return unpack_values(self._chosen(pages), self.page, self.dtype)

    def records(self, pages: Sequence[int]) -> torch.Tensor:
        """Copies of packed pages (n, page.nbytes)."""
        return self.packed.index_select(0, torch.tensor(pages, dtype=torch.int64, device=self.device))

    def put(self, pages: Sequence[int], records: torch.Tensor) -> None:
        """Stores packed pages (n, page.nbytes)."""
        self.packed.index_copy_(0, torch.tensor(pages, dtype=torch.int64, device=self.device), records)

    def _chosen(self, pages: slice | torch.Tensor) -> torch.Tensor:
        return self.packed[pages] if isinstance(pages, slice) else self.packed.index_select(0, pages)


def unpacked_tokens(
    records: torch.Tensor, page: PackedPage, dtype: torch.dtype, start: int, stop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens start .. stop of neighbouring pages in records (n, page.nbytes) -> key (Hk, m, Dk), value (Hv, m, Dv)."""
    assert 0 <= start < stop <= records.shape[0] * page.tokens
    key, value = unpack_keys(records, page, dtype), unpack_values(records, page, dtype)
    return (
        key.transpose(0, 1).flatten(1, 2)[:, start:stop],
        value.transpose(0, 1).flatten(1, 2)[:, start:stop],
    )
