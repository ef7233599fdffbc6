"""The paged KV cache: given to transformers as `past_key_values`, it stores keys and values as `update` receives them.

Pages hold a fixed number of tokens; a sequence has one table of page numbers, the same in every layer, and the answers
to one prompt share the pages it fills. Because `update` is called before attention expands anything, latent attention
(MLA) stays latent here, and a layer that shares another's keys and values stores nothing.

T rows of a micro-batch; Hk, Hv heads and Dk, Dv sizes of keys and values.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.facts.cache_shape import CacheShape
from windlass.kernels.page_store import PageStore
from windlass.model.attention_clock import AttentionClock
from windlass.model.latent import latent_attention
from windlass.model.layer_store import Batch, LayerStore
from windlass.model.page_table import PageTable
from windlass.model.shared_states import store_index


class MicroBatch(threading.local):
    """The micro-batch that the calling thread computes: two may be on their way through one layer."""

    batch: Batch | None = None
    positions: torch.Tensor | None = None
    decode_tokens = 0


class KVCache:
    """What a layer's attention calls `update` on and reads from. The runner sets the micro-batch being computed."""

    is_compileable = False
    is_sliding: Sequence[bool] = ()

    def __init__(self, stores: Mapping[int, LayerStore], shapes: Mapping[int, CacheShape], table: PageTable) -> None:
        self.stores, self.shapes = dict(stores), dict(shapes)
        self.table = table
        self.clock = AttentionClock()
        self._now = MicroBatch()

    def begin(self, batch: Batch, positions: torch.Tensor | None = None) -> None:
        """Sets the micro-batch and its rows' positions (T,). What decode reads is counted by the clock; prefill not."""
        now = self._now
        now.batch, now.positions = batch, positions
        now.decode_tokens = 0 if batch.prefill_spans else sum(span.total for span in batch.spans)

    def copy_pages(self, pairs: Iterable[tuple[int, int]], places: tuple[int, int] | None = None) -> None:
        """Copies whole pages, `(from, to)` each, in every layer. One that is not full may lie in `places`."""
        for source, target in pairs:
            for store in self.stores.values():
                store.copy_page(source, target, places)

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
        batch = self._now.batch
        assert batch is not None, "attention outside a micro-batch"
        layer = store_index(module)
        store, shape = self.stores[layer], self.shapes[layer]
        start = self.clock.start()
        if (shape.key_heads, shape.key_dim, shape.value_dim) == (key.shape[0], key.shape[2], value.shape[2]):
            out = store.attend(query, key, value, batch, rule, sinks)
        else:
            out = latent_attention(module, query, store, batch, rule, sinks)
        self.clock.stop(start, self._now.decode_tokens * shape.elements * key.element_size())
        return out

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """key_states (1, Hk, T, Dk) and value_states (1, Hv, T, Dv) are stored, and returned as they came.

        What came before stays in the store, where attention reads it.
        """
        batch = self._now.batch
        assert batch is not None, "update outside a micro-batch"
        self.stores[layer_idx].write(batch, key_states[0], value_states[0])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int | None = None) -> int | torch.Tensor:
        """0 for the model, which is given positions explicitly: a packed row has no one length.

        A layer that asks for its own (llama4 does) adds 0 .. T-1 to the answer, and gets each row's true position.
        """
        positions = self._now.positions
        if layer_idx is None or positions is None:
            return 0
        return positions - torch.arange(len(positions), device=positions.device)

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
