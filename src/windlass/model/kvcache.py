"""The paged KV cache: given to transformers as `past_key_values`, it stores keys and values as `update` receives them.

Pages hold a fixed number of tokens; a sequence has one table of page numbers, the same in every layer. Because
`update` is called before attention expands anything, latent attention (MLA) stays latent here, and a layer that
shares another's keys and values stores nothing.

T rows of a micro-batch; Hk, Hv heads and Dk, Dv sizes of keys and values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from windlass.errors import BudgetError
from windlass.facts.attention_rule import AttentionRule
from windlass.facts.model_facts import CacheShape
from windlass.kernels.attention import paged_attention
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.page_store import PageStore
from windlass.model.attention_clock import AttentionClock
from windlass.model.latent import latent_attention
from windlass.model.shared_states import store_index


class PageTable:
    """Which pages belong to which sequence. Pages come from a free list and go back when a sequence ends."""

    def __init__(self, num_pages: int, page_tokens: int) -> None:
        self.num_pages, self.page_tokens = num_pages, page_tokens
        self.free = list(range(num_pages - 1, -1, -1))
        self.pages: dict[int, list[int]] = {}

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens take."""
        return -(-tokens // self.page_tokens)

    def reserve(self, sequence: int, tokens: int) -> None:
        """Grows a sequence's table until it covers `tokens` tokens. Raises BudgetError when no page is free."""
        table = self.pages.setdefault(sequence, [])
        needed = self.pages_for(tokens) - len(table)
        if needed > len(self.free):
            raise BudgetError(
                f"the KV cache has {len(self.free)} of {self.num_pages} pages free, {needed} are needed; "
                "use a smaller --block-size or a larger --host-memory"
            )
        table.extend(self.free.pop() for _ in range(needed))

    def release(self, sequence: int) -> None:
        """Returns a sequence's pages."""
        self.free.extend(reversed(self.pages.pop(sequence, [])))

    def check(self) -> None:
        """Every page is free or in exactly one table."""
        held = [page for table in self.pages.values() for page in table] + self.free
        assert sorted(held) == list(range(self.num_pages)), f"{len(held)} pages accounted for of {self.num_pages}"


class KVCache:
    """What a layer's attention calls `update` on and reads from. The runner sets the micro-batch being computed."""

    is_compileable = False
    is_sliding: Sequence[bool] = ()

    def __init__(self, stores: Mapping[int, PageStore], shapes: Mapping[int, CacheShape], table: PageTable) -> None:
        self.stores, self.shapes = dict(stores), dict(shapes)
        self.table = table
        self.clock = AttentionClock()
        self.batch: AttentionBatch | None = None
        self._decode_tokens = 0
        self._positions: torch.Tensor | None = None

    def begin(self, batch: AttentionBatch, positions: torch.Tensor | None = None) -> None:
        """Sets the micro-batch and its rows' positions (T,). What decode reads is counted by the clock; prefill not."""
        self.batch, self._positions = batch, positions
        self._decode_tokens = 0 if batch.prefill_spans else sum(span.total for span in batch.spans)

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """query (H, T, Dk), with key (Hk, T, Dk) and value (Hk, T, Dv) as the module now sees them -> (T, H, Dv).

        Where the store holds something else than arrives here (latents), keys and values are rebuilt in pieces.
        """
        assert self.batch is not None, "attention outside a micro-batch"
        layer = store_index(module)
        store, shape = self.stores[layer], self.shapes[layer]
        start = self.clock.start()
        if (shape.key_heads, shape.key_dim, shape.value_dim) == (key.shape[0], key.shape[2], value.shape[2]):
            out = paged_attention(query, store, self.batch, rule, sinks)
        else:
            out = latent_attention(module, query, store, self.batch, rule, sinks)
        self.clock.stop(start, self._decode_tokens * shape.elements * key.element_size())
        return out

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """key_states (1, Hk, T, Dk) and value_states (1, Hv, T, Dv) are stored, and returned as they came.

        What came before stays in the store, where attention reads it.
        """
        assert self.batch is not None, "update outside a micro-batch"
        self.stores[layer_idx].write(self.batch, key_states[0], value_states[0])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int | None = None) -> int | torch.Tensor:
        """0 for the model, which is given positions explicitly: a packed row has no one length.

        A layer that asks for its own (llama4 does) adds 0 .. T-1 to the answer, and gets each row's true position.
        """
        if layer_idx is None or self._positions is None:
            return 0
        return self._positions - torch.arange(len(self._positions), device=self._positions.device)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """See get_seq_length."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Masks are ours; transformers builds none."""
        return query_length, 0


def cache_bytes(shapes: Sequence[tuple[int, CacheShape]], num_pages: int, page_tokens: int, dtype: torch.dtype) -> int:
    """Bytes of the stores of all layers."""
    return sum(
        PageStore.nbytes(num_pages, page_tokens, s.key_heads, s.key_dim, s.value_heads, s.value_dim, dtype)
        for _, s in shapes
    )
