"""Keys and values of one layer in the memory where the host computes and, what has no place there, on disk.

T rows of a micro-batch, S sequences that decode; H query heads; Hk, Hv heads and Dk, Dv sizes of keys and values.
"""

from collections.abc import Sequence

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention import decode_sizes
from windlass.kernels.decode_attention import finish_decode, partial_decode
from windlass.kernels.page_store import PageStore
from windlass.kernels.partial_results import combine
from windlass.kernels.token_span import TokenSpan
from windlass.model.context_attention import Partial, prefill_rows
from windlass.model.disk_pages import DiskPages
from windlass.model.layer_store import Batch


class SpillingStore:
    """`here` holds the first pages, `disk` those behind them."""

    def __init__(self, here: PageStore, disk: DiskPages) -> None:
        self.here, self.disk = here, disk

    def write(self, batch: Batch, key: torch.Tensor, value: torch.Tensor) -> None:
        """See LayerStore."""
        for view, store in ((batch.here, self.here), (batch.disk, self.disk)):
            assert view is not None and view.rows is not None
            if len(view.rows):
                store.write(view, key.index_select(1, view.rows), value.index_select(1, view.rows))

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        batch: Batch,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """See LayerStore."""
        out = query.new_empty(query.shape[1], query.shape[0], self.here.values.shape[-1])
        prefill_rows(out, query, key, value, batch.here.prefill_groups, rule, sinks, self.read)
        if batch.here.decode_spans:
            decoding = query.index_select(1, batch.here.decode_rows).transpose(0, 1)
            out[batch.here.decode_rows] = finish_decode(self._decode(decoding, batch, rule), sinks).to(out.dtype)
        return out

    def read(self, span: TokenSpan, stop: int, start: int = 0) -> Partial:
        """See LayerStore."""
        return self._read(span.pages, stop, start)

    def _read(self, pages: Sequence[int], stop: int, start: int) -> Partial:
        size, parts = self.here.page_tokens, []
        first_disk_page = self.here.num_pages
        for number in range(start // size, -(-stop // size)):
            on_disk = pages[number] >= first_disk_page
            store = self.disk if on_disk else self.here
            local = pages[number] - first_disk_page if on_disk else pages[number]
            low, high = max(start, number * size), min(stop, (number + 1) * size)
            parts.append(store.read([local], high - number * size, low - number * size))
        return torch.cat([key for key, _ in parts], dim=1), torch.cat([value for _, value in parts], dim=1)

    def copy_page(self, source: int, target: int, places: tuple[int, int] | None = None) -> None:
        """See LayerStore."""
        key, value = self._read([source], self.here.page_tokens, 0)
        if target >= self.here.num_pages:
            self.disk.put(target - self.here.num_pages, key, value)
        else:
            self.here.keys[target], self.here.values[target] = key, value

    def _decode(self, query: torch.Tensor, batch: Batch, rule: AttentionRule) -> Partial:
        """query (S, H, Dk) -> out (S, H, Dv) and log-sum-exp (S, H), float32."""
        assert batch.disk is not None
        plan = batch.here.decode_plan(rule, decode_sizes(query.shape[1], self.here))
        results = [partial_decode(query, self.here, plan, rule)] if plan.reads else []
        on_disk = self.disk.partial(query, batch.disk, rule, batch.turn)
        results += [on_disk] if on_disk is not None else []
        return results[0] if len(results) == 1 else combine(*results)
