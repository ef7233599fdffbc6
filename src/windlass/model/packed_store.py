"""Keys and values of one layer, packed into few bits as soon as a page is full.

The page that a sequence is filling lies, unpacked, in a place of the sequence's own where the model computes. A token
sees packed the pages that are full once it is stored itself, and the others as they are: the same whether it came alone
or in a long row, wherever the row is cut, and in whichever memory the full pages lie. A layer that shares another's
keys and values, and one that keeps latents, see packed all that is full when they attend.

T rows of a micro-batch, S sequences that decode, m tokens; P tokens a page; H query heads; Hk, Hv heads and Dk, Dv
sizes of keys and values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.facts.packed_page import PackedPage
from windlass.kernels.attention import decode_sizes
from windlass.kernels.decode_attention import finish_decode, partial_decode
from windlass.kernels.decode_plan import open_reads
from windlass.kernels.packed_pages import unpacked_tokens
from windlass.kernels.page_packing import pack_pages
from windlass.kernels.page_store import PageStore
from windlass.kernels.page_writes import PageWrites, Slots
from windlass.kernels.partial_results import combine
from windlass.kernels.span_attention import finish, partial_attention
from windlass.kernels.token_span import TokenSpan
from windlass.model.layer_store import Batch

PIECE_TOKENS = 4096
"""Tokens of full pages that are unpacked at once for prompts."""
PACKED_AT_ONCE = 16
"""Pages that are packed at once."""

Partial = tuple[torch.Tensor, torch.Tensor]


class FullPages(Protocol):
    """The packed pages of a layer, wherever they lie."""

    def put(self, pages: Sequence[int], records: torch.Tensor) -> None:
        """Stores packed pages (n, page.nbytes), which lie where the model computes."""
        ...

    def records(self, pages: Sequence[int]) -> torch.Tensor:
        """Copies of packed pages (n, page.nbytes), where the model computes."""
        ...

    def begin(self, query: torch.Tensor, batch: Batch, rule: AttentionRule) -> Callable[[], list[Partial]]:
        """Begins to attend to what query (S, H, Dk) sees here; the results are asked for when all else is done."""
        ...


@dataclass(frozen=True, slots=True)
class Replaced:
    """What the first slots of a page held before another page was opened in its place: (Hk, m, Dk), (Hv, m, Dv)."""

    page: int
    key: torch.Tensor
    value: torch.Tensor


class PackedStore:
    """`open` has a place for each sequence's page that is not full, `full` the packed ones."""

    def __init__(self, open_places: PageStore, full: FullPages, page: PackedPage) -> None:
        self.open, self.full, self.page = open_places, full, page
        self._page_in: dict[int, int] = {}
        self._replaced: dict[int, Replaced] = {}

    def write(self, batch: Batch, key: torch.Tensor, value: torch.Tensor) -> None:
        """See LayerStore. A micro-batch that failed half-way may be written again, cut differently."""
        writes, keys, values = batch.here.page_writes, self.open.keys, self.open.values
        self._keep_begun(writes)
        self._store(writes.begun, key, value)
        filled, whole = writes.filled, writes.whole.view(-1, self.page.tokens)
        self._pack(writes.filled_pages, lambda cut: (keys[filled[cut]], values[filled[cut]]))
        self._pack(writes.whole_pages, lambda cut: (_pages(key, whole[cut]), _pages(value, whole[cut])))
        if writes.opened_pages:
            # What lies behind a sequence's end is multiplied by a weight of zero, so it must be finite.
            values.index_fill_(0, writes.opened_places, 0)
            self._store(writes.opened, key, value)
            self._page_in.update(zip(writes.opened_places.tolist(), writes.opened_pages, strict=True))

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
        out, here = query.new_empty(query.shape[1], query.shape[0], self.open.value_dim), batch.here
        decoding = query.index_select(1, here.decode_rows).transpose(0, 1).contiguous()  # (S, H, Dk)
        begun = self.full.begin(decoding, batch, rule) if here.decode_spans else list
        fresh = (key, value) if key.shape[1] == query.shape[1] else None
        # Another micro-batch may fill these pages while this one waits for full ones.
        unpacked = [self._not_full(alike, fresh) for alike in here.prefill_groups]
        for alike, own in zip(here.prefill_groups, unpacked, strict=True):
            attended = self._prefill(query, alike, own, rule, sinks, fresh is None)
            for span, rows in zip(alike, attended, strict=True):
                out[span.row : span.row + span.length] = rows
        if here.decode_spans:
            plan = here.decode_plan(rule, decode_sizes(query.shape[0], self.open), open_reads)
            results = [partial_decode(decoding, self.open, plan, rule)] if plan.reads else []
            whole = reduce(combine, [*results, *begun()])
            out[here.decode_rows] = finish_decode(whole, sinks).to(out.dtype)
        return out

    def read(self, span: TokenSpan, stop: int, start: int = 0) -> Partial:
        """See LayerStore."""
        size, full = self.page.tokens, span.total // self.page.tokens * self.page.tokens
        parts = [self._read_full(span, min(stop, full), start)] if start < full else []
        if stop > full:
            slots = slice(max(start, full) - full, stop - full)
            parts.append((self.open.keys[span.place, :, slots].clone(), self.open.values[span.place, :, slots].clone()))
        assert parts and stop <= full + size
        return parts[0] if len(parts) == 1 else _joined(parts)

    def copy_page(self, source: int, target: int, places: tuple[int, int] | None = None) -> None:
        """See LayerStore."""
        if places is None:
            self.full.put([target], self.full.records([source]))
            return
        self.open.keys[places[1]].copy_(self.open.keys[places[0]])
        self.open.values[places[1]].copy_(self.open.values[places[0]])
        self._page_in[places[1]] = target

    def _store(self, at: Slots, key: torch.Tensor, value: torch.Tensor) -> None:
        if len(at.rows):
            self.open.keys[at.places, :, at.slots] = key.index_select(1, at.rows).transpose(0, 1)
            self.open.values[at.places, :, at.slots] = value.index_select(1, at.rows).transpose(0, 1)

    def _pack(self, pages: Sequence[int], numbers: Callable[[slice], Partial]) -> None:
        """Packs key (n, Hk, P, Dk) and value (n, Hv, P, Dv) of full pages, which `numbers` gives, a few at a time."""
        for at in range(0, len(pages), PACKED_AT_ONCE):
            cut = slice(at, at + PACKED_AT_ONCE)
            self.full.put(pages[cut], pack_pages(*numbers(cut), self.page))

    def _keep_begun(self, writes: PageWrites) -> None:
        """Keeps the first slots of pages that are about to be replaced, and puts them back where that was in vain."""
        for begun in writes.begun_pages if self._replaced or any(b.replaced for b in writes.begun_pages) else ():
            place, slots, kept = begun.place, slice(begun.slots), self._replaced.get(begun.place)
            keys, values = self.open.keys[place, :, slots], self.open.values[place, :, slots]
            if self._page_in.get(place) == begun.page:
                self._replaced.pop(place, None)
                if begun.replaced:
                    self._replaced[place] = Replaced(begun.page, keys.clone(), values.clone())
            else:
                assert kept is not None and kept.page == begun.page, f"page {begun.page} is not where it was begun"
                keys.copy_(kept.key[:, slots])
                values.copy_(kept.value[:, slots])
                self._page_in[place] = begun.page

    def _not_full(self, alike: Sequence[TokenSpan], fresh: Partial | None) -> Partial:
        """The tokens of the spans that were not packed when their newest saw them: key (B * Hk, m, Dk) and its value.

        They begin with the page that the spans go on with; without `fresh` tokens, with the one that is not full yet.
        """
        parts = []
        for span in alike:
            slots = slice((span.total if fresh is None else span.context) % self.page.tokens)
            kept, page = self._replaced.get(span.place), span.pages[span.context // self.page.tokens]
            if fresh is not None and kept is not None and kept.page == page:
                stored = kept.key, kept.value
            else:
                stored = self.open.keys[span.place, :, slots], self.open.values[span.place, :, slots]
            rows = slice(span.row, span.row + span.length)
            parts.append(stored if fresh is None else _joined([stored, (fresh[0][:, rows], fresh[1][:, rows])]))
        return torch.cat([key for key, _ in parts]), torch.cat([value for _, value in parts])

    def _prefill(
        self, query: torch.Tensor, alike: Sequence[TokenSpan], own: Partial, rule: AttentionRule,
        sinks: torch.Tensor | None, shares: bool,
    ) -> torch.Tensor:  # fmt: skip
        """query (H, T, Dk) over full pages and what is `own` -> (B, n, H, Dv). `shares`: another layer's store."""
        span, size = alike[0], self.page.tokens
        stacked = torch.cat([query[:, each.row : each.row + each.length] for each in alike])  # (B * H, n, Dk)
        full, first = span.total // size * size, (span.total if shares else span.context) // size * size
        packed_rule = rule if shares else replace(rule, full_pages=size)
        own_rule = rule if shares else replace(rule, open_page=size)
        results = []
        for at in range(rule.first_visible(span.context) // size * size, full, PIECE_TOKENS):
            pieces = [self._read_full(each, min(at + PIECE_TOKENS, full), at) for each in alike]
            key, value = torch.cat([key for key, _ in pieces]), torch.cat([value for _, value in pieces])
            results.append(partial_attention(stacked, key, value, span.context, packed_rule, at))
        if own[0].shape[1]:
            results.append(partial_attention(stacked, *own, span.context, own_rule, first))
        repeated = None if sinks is None else sinks.repeat(len(alike))
        out = finish(*reduce(combine, results), repeated).to(query.dtype)  # (B * H, n, Dv)
        return out.unflatten(0, (len(alike), -1)).transpose(1, 2)

    def _read_full(self, span: TokenSpan, stop: int, start: int) -> Partial:
        """Tokens start .. stop of full pages -> key (Hk, m, Dk), value (Hv, m, Dv)."""
        first = start // self.page.tokens
        records = self.full.records(span.pages[first : -(-stop // self.page.tokens)])
        offset = first * self.page.tokens
        return unpacked_tokens(records, self.page, self.open.keys.dtype, start - offset, stop - offset)


def _pages(numbers: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """numbers (H, T, D) and rows (n, P) -> (n, H, P, D)."""
    return numbers.index_select(1, rows.flatten()).unflatten(1, rows.shape).transpose(0, 1)


def _joined(parts: Sequence[Partial]) -> Partial:
    """Neighbouring tokens, one after the other."""
    return torch.cat([key for key, _ in parts], dim=1), torch.cat([value for _, value in parts], dim=1)
