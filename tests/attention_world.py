"""Sequences in a poisoned store, advanced a micro-batch at a time and compared with the definition of attention."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention import paged_attention
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.page_store import PageStore
from windlass.kernels.reference_attention import reference_attention
from windlass.kernels.token_span import TokenSpan

FLOAT32_LIMIT = 2e-6
CPU = torch.device("cpu")
RULES = {
    "causal": AttentionRule(0.25),
    "window": AttentionRule(0.25, window=5),
    "wide window": AttentionRule(0.25, window=21),
    "chunk": AttentionRule(0.25, chunk=6),
    "softcap": AttentionRule(0.25, softcap=2.0),
    "window and softcap": AttentionRule(0.25, window=9, softcap=3.0),
}


@dataclass
class Heads:
    """Head counts and sizes of a layer."""

    query: int = 6
    key: int = 2
    key_dim: int = 16
    value_dim: int = 16


@dataclass
class Story:
    """One sequence: all its queries, keys and values, its pages, and how much of it is stored."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    pages: list[int]
    stored: int = 0


@dataclass
class World:
    """A poisoned store and the sequences in it, advanced a micro-batch at a time and compared with the reference."""

    lengths: Sequence[int]
    heads: Heads = field(default_factory=Heads)
    page_tokens: int = 4
    dtype: torch.dtype = torch.float32
    scattered: bool = True

    def __post_init__(self) -> None:
        counts = [-(-length // self.page_tokens) for length in self.lengths]
        total = sum(counts) + 5
        free = (torch.randperm(total) if self.scattered else torch.arange(total)).tolist()
        h = self.heads
        self.store = PageStore(total, self.page_tokens, h.key, h.key_dim, h.key, h.value_dim, self.dtype, "cpu")
        self.store.keys.fill_(torch.nan)
        self.store.values.fill_(torch.nan)
        self.sequences = [
            Story(
                torch.randn(h.query, length, h.key_dim).to(self.dtype),
                torch.randn(h.key, length, h.key_dim).to(self.dtype),
                torch.randn(h.key, length, h.value_dim).to(self.dtype),
                [free.pop(0) for _ in range(count)],
            )
            for length, count in zip(self.lengths, counts, strict=True)
        ]

    def step(self, new: Sequence[int], rule: AttentionRule, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """Advances sequence i by new[i] tokens -> our result (T, H, Dv)."""
        self.moved = [(s, n) for s, n in zip(self.sequences, new, strict=True) if n]
        rows = [sum(n for _, n in self.moved[:at]) for at in range(len(self.moved))]
        spans = [TokenSpan(row, n, s.stored, s.pages) for row, (s, n) in zip(rows, self.moved, strict=True)]
        batch = AttentionBatch(spans, self.page_tokens, "cpu")
        self.store.write(batch, self._new("key"), self._new("value"))
        out = paged_attention(self._new("query"), self.store, batch, rule, sinks)
        self.spans, self.sinks, self.rule = spans, sinks, rule
        for sequence, count in self.moved:
            sequence.stored += count
        return out

    def reference(self) -> torch.Tensor:
        """What the last step should have given, in float64."""
        return torch.cat([
            reference_attention(
                s.query[:, s.stored - n : s.stored], s.key[:, : s.stored], s.value[:, : s.stored],
                s.stored - n, self.rule, self.sinks,
            )
            for s, n in self.moved
        ])  # fmt: skip

    def worst(self, new: Sequence[int], rule: AttentionRule, sinks: torch.Tensor | None = None) -> float:
        """Advances and returns the largest difference from the reference."""
        return (self.step(new, rule, sinks) - self.reference()).abs().max().item()

    def _new(self, part: str) -> torch.Tensor:
        return torch.cat([getattr(s, part)[:, s.stored : s.stored + n] for s, n in self.moved], dim=1)
