"""One layer's keys and values in pages of a fixed number of tokens, so that sequences of any length share one arena.

Legend: N pages, P tokens a page, T tokens in the micro-batch, m tokens of one sequence; Hk, Hv heads of keys and
values; Dk, Dv their sizes. In a page each head is one dense matrix (P, D), which a batched product takes as is.
"""

import math
from collections.abc import Sequence

import torch

from windlass.kernels.attention_batch import AttentionBatch

PAGE_TOKENS = 64


class PageStore:
    """Keys (N, Hk, P, Dk) and values (N, Hv, P, Dv) of one layer. Slots not written may hold anything, NaN too."""

    def __init__(
        self, num_pages: int, page_tokens: int, key_heads: int, key_dim: int, value_heads: int, value_dim: int,
        dtype: torch.dtype, device: torch.device | str, storage: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        """`storage` is a flat tensor of at least `nbytes(...)` bytes to live in; without it the store owns memory."""
        self.num_pages, self.page_tokens = num_pages, page_tokens
        needed = self.nbytes(num_pages, page_tokens, key_heads, key_dim, value_heads, value_dim, dtype)
        if storage is None:
            storage = torch.empty(needed, dtype=torch.uint8, device=device)
        held = storage.view(torch.uint8)
        assert held.numel() >= needed, f"a page store needs {needed} bytes, its storage holds {held.numel()}"
        split = num_pages * key_heads * page_tokens * key_dim * dtype.itemsize
        self.keys = held[:split].view(dtype).view(num_pages, key_heads, page_tokens, key_dim)
        self.values = held[split:needed].view(dtype).view(num_pages, value_heads, page_tokens, value_dim)

    @property
    def device(self) -> torch.device:
        """Where the pages lie."""
        return self.keys.device

    @property
    def key_heads(self) -> int:
        """Hk."""
        return self.keys.shape[1]

    @property
    def value_dim(self) -> int:
        """Dv."""
        return self.values.shape[-1]

    @property
    def key_page_bytes(self) -> int:
        """Bytes of the keys of a page."""
        return self.keys.stride(0) * self.keys.itemsize

    def key_pages(self, pages: slice | torch.Tensor) -> torch.Tensor:
        """Keys (n, Hk, P, Dk): a view of a run, a copy of scattered pages."""
        return self.keys[pages] if isinstance(pages, slice) else self.keys.index_select(0, pages)

    def value_pages(self, pages: slice | torch.Tensor) -> torch.Tensor:
        """Values (n, Hv, P, Dv): a view of a run, a copy of scattered pages."""
        return self.values[pages] if isinstance(pages, slice) else self.values.index_select(0, pages)

    @staticmethod
    def nbytes(
        num_pages: int, page_tokens: int, key_heads: int, key_dim: int, value_heads: int, value_dim: int,
        dtype: torch.dtype,
    ) -> int:  # fmt: skip
        """Bytes of keys and values of one layer."""
        return num_pages * page_tokens * (key_heads * key_dim + value_heads * value_dim) * dtype.itemsize

    def write(self, batch: AttentionBatch, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores the new tokens' key (Hk, T, Dk) and value (Hv, T, Dv) in the slots that `batch` names.

        Where the store holds only some of the pages, T counts the rows of `batch.rows`.
        """
        if batch.opened_pages is not None:
            # What lies behind a sequence's end is multiplied by a weight of zero, so it must be finite.
            self.values.index_fill_(0, batch.opened_pages, 0)
        if batch.only_slot is not None:  # a tenth of the time of an index, and with one row that counts
            page, slot = batch.only_slot
            self.keys[page, :, slot].copy_(key[:, 0])
            self.values[page, :, slot].copy_(value[:, 0])
            return
        self.keys[batch.row_page, :, batch.row_slot] = key.transpose(0, 1)
        self.values[batch.row_page, :, batch.row_slot] = value.transpose(0, 1)

    def read(self, pages: Sequence[int], stop: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens start .. stop of the sequence stored in `pages` -> copies key (Hk, m, Dk) and value (Hv, m, Dv)."""
        return self.read_equal([pages], stop, start)

    def read_equal(
        self, tables: Sequence[Sequence[int]], stop: int, start: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens start .. stop of each of B sequences -> copies key (B * Hk, m, Dk) and value (B * Hv, m, Dv)."""
        first, last = start // self.page_tokens, math.ceil(stop / self.page_tokens)
        index = torch.tensor([list(pages[first:last]) for pages in tables], device=self.keys.device)  # (B, c)
        cut = slice(start - first * self.page_tokens, stop - first * self.page_tokens)
        return _dense(self.keys, index)[:, cut], _dense(self.values, index)[:, cut]


def _dense(stored: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Gathers stored (N, H, P, D) by page index (B, c) -> (B * H, c * P, D), in one copy."""
    heads, page_tokens, dim = stored.shape[1:]
    head = torch.arange(heads, device=index.device)[:, None]
    rows = (index[:, None] * heads + head).flatten()  # (B * H * c)
    return stored.flatten(0, 1).index_select(0, rows).view(-1, index.shape[1] * page_tokens, dim)
