"""The paged KV cache: given to transformers as `past_key_values`, it stores keys and values as `update` receives them.

Pages hold a fixed number of tokens; a sequence has one table of page numbers, the same in every layer, and the answers
to one prompt share the pages it fills. Because `update` is called before attention expands anything, latent attention
(MLA) stays latent here, and a layer that shares another's keys and values stores nothing.

T rows of a micro-batch; Hk, Hv heads and Dk, Dv sizes of keys and values.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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


class PageTable:
    """Which pages hold which sequence. Several may hold a page; it is free again when the last of them lets it go."""

    def __init__(self, num_pages: int, page_tokens: int) -> None:
        self.num_pages, self.page_tokens = num_pages, page_tokens
        self.free = list(range(num_pages - 1, -1, -1))
        self.pages: dict[int, list[int]] = {}
        self._holders = [0] * num_pages

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
        for _ in range(needed):
            page = self.free.pop()
            self._holders[page] = 1
            table.append(page)

    def share(self, sequence: int, other: int, count: int) -> None:
        """Begins a new sequence's table with the first `count` pages of another's, which both hold from then on."""
        assert sequence not in self.pages, f"sequence {sequence} has a table already"
        self.pages[sequence] = self.pages[other][:count]
        for page in self.pages[sequence]:
            self._holders[page] += 1

    def hand_over(self, sequence: int, other: int) -> None:
        """What belonged to a sequence belongs to another, which has nothing yet."""
        assert other not in self.pages, f"sequence {other} has a table already"
        self.pages[other] = self.pages.pop(sequence)

    def shrink(self, sequence: int, tokens: int) -> None:
        """Lets go of the pages behind those that the first `tokens` tokens take."""
        table = self.pages[sequence]
        kept = self.pages_for(tokens)
        self._let_go(table[kept:])
        del table[kept:]

    def release(self, sequence: int) -> None:
        """Lets go of all of a sequence's pages."""
        self._let_go(self.pages.pop(sequence, []))

    def check(self) -> None:
        """Every page is free or in as many tables as are counted, and never twice in one."""
        held = Counter(page for table in self.pages.values() for page in table)
        assert [held[page] for page in range(self.num_pages)] == self._holders, "holders of pages are miscounted"
        assert all(len(set(table)) == len(table) for table in self.pages.values()), "a page is twice in one table"
        accounted = sorted([*held, *self.free])
        assert accounted == list(range(self.num_pages)), f"{len(accounted)} pages accounted for of {self.num_pages}"

    def _let_go(self, pages: Sequence[int]) -> None:
        for page in reversed(pages):
            self._holders[page] -= 1
            if not self._holders[page]:
                self.free.append(page)


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

    def copy_pages(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copies whole pages, `(from, to)` each, in every layer."""
        for source, target in pairs:
            for store in self.stores.values():
                store.keys[target].copy_(store.keys[source])
                store.values[target].copy_(store.values[source])

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
        layer = self._layer(module)
        store, shape = self.stores[layer], self.shapes[layer]
        start = self.clock.start()
        if (shape.key_heads, shape.key_dim, shape.value_dim) == (key.shape[0], key.shape[2], value.shape[2]):
            out = paged_attention(query, store, self.batch, rule, sinks)
        else:
            out = latent_attention(module, query, store, self.batch, rule, sinks)
        self.clock.stop(start, self._decode_tokens * shape.elements * key.element_size())
        return out

    def _layer(self, module: Any) -> int:
        """The layer whose keys and values a module attends to: its own, or the one it shares them with."""
        own = int(module.layer_idx)
        return own if own in self.stores else int(module.kv_shared_layer_index)

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
