"""Sequences in a packed store, advanced a micro-batch at a time and compared with what a token sees by definition."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from attention_world import Heads, Story
from windlass.facts.attention_rule import AttentionRule
from windlass.facts.cache_shape import CacheShape
from windlass.facts.packed_page import PackedPage
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_packing import pack_pages, unpack_keys, unpack_values
from windlass.kernels.page_store import PageStore
from windlass.kernels.reference_attention import reference_attention
from windlass.kernels.token_span import TokenSpan
from windlass.model.layer_store import Batch
from windlass.model.packed_here import PackedHere
from windlass.model.packed_store import PackedStore


def seen(story: Story, position: int, page: PackedPage) -> tuple[torch.Tensor, torch.Tensor]:
    """What the token at `position` sees: pages that are full with it packed, the rest as it is."""
    full = (position + 1) // page.tokens * page.tokens
    keys, values = story.key[None, :, :full], story.value[None, :, :full]
    if not full:
        return story.key[:, : position + 1], story.value[:, : position + 1]
    paged = [each.unflatten(2, (-1, page.tokens))[0].transpose(0, 1) for each in (keys, values)]
    packed = pack_pages(*paged, page)
    unpacked = unpack_keys(packed, page, story.key.dtype), unpack_values(packed, page, story.key.dtype)
    key, value = (each.transpose(0, 1).flatten(1, 2) for each in unpacked)
    return (
        torch.cat([key, story.key[:, full : position + 1]], dim=1),
        torch.cat([value, story.value[:, full : position + 1]], dim=1),
    )


@dataclass
class PackedWorld:
    """A store whose unwritten bytes are poison, and the sequences in it."""

    lengths: Sequence[int]
    bits: int = 4
    heads: Heads = field(default_factory=Heads)
    page_tokens: int = 4
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        h, counts = self.heads, [-(-length // self.page_tokens) for length in self.lengths]
        total = sum(counts) + 3
        free = torch.randperm(total).tolist()
        self.page = PackedPage(CacheShape(h.key, h.key_dim, h.key, h.value_dim), self.page_tokens, self.bits)
        packed = torch.full((total, self.page.nbytes), 255, dtype=torch.uint8)  # scales that are NaN
        places = len(self.lengths)
        sizes = (places, self.page_tokens, h.key, h.key_dim, h.key, h.value_dim)
        opened = PageStore(*sizes, self.dtype, "cpu")
        opened.keys.fill_(torch.nan)
        opened.values.fill_(torch.nan)
        self.pages = PackedPages(packed, self.page, self.dtype)
        self.store = PackedStore(opened, PackedHere(self.pages), self.page)
        self.places = torch.randperm(places).tolist()
        self.sequences = [
            Story(
                torch.randn(h.query, length, h.key_dim).to(self.dtype),
                (torch.randn(h.key, length, h.key_dim) + 3 * torch.randn(h.key, 1, h.key_dim)).to(self.dtype),
                torch.randn(h.key, length, h.value_dim).to(self.dtype),
                [free.pop(0) for _ in range(count)],
            )
            for length, count in zip(self.lengths, counts, strict=True)
        ]

    def batch(self, new: Sequence[int]) -> tuple[Batch, list[tuple[Story, int]]]:
        """The micro-batch of new[i] tokens of sequence i."""
        spans, moved, row = [], [], 0
        for story, count, place in zip(self.sequences, new, self.places, strict=True):
            if count:
                spans.append(TokenSpan(row, count, story.stored, story.pages, place))
                moved.append((story, count))
                row += count
        return Batch(AttentionBatch(spans, self.page_tokens, "cpu")), moved

    def step(
        self, new: Sequence[int], rule: AttentionRule, sinks: torch.Tensor | None = None, writes: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advances -> our result and, in float64, what it should be, both (T, H, Dv). It is written `writes` times."""
        batch, moved = self.batch(new)
        query, key, value = (
            torch.cat([getattr(s, part)[:, s.stored : s.stored + n] for s, n in moved], dim=1)
            for part in ("query", "key", "value")
        )
        for _ in range(writes):
            self.store.write(batch, key, value)
        out = self.store.attend(query, key, value, batch, rule, sinks)
        wanted = torch.cat([
            reference_attention(s.query[:, at : at + 1], *seen(s, at, self.page), at, rule, sinks)
            for s, n in moved
            for at in range(s.stored, s.stored + n)
        ])  # fmt: skip
        for story, count in moved:
            story.stored += count
        return out, wanted

    def worst(
        self, new: Sequence[int], rule: AttentionRule, sinks: torch.Tensor | None = None, writes: int = 1
    ) -> float:
        """Advances and returns the largest difference from the definition."""
        out, wanted = self.step(new, rule, sinks, writes)
        return (out - wanted).abs().max().item()
