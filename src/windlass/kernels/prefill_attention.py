"""Attention of runs of new tokens over what the store holds of their sequences.

Spans of equal length and context (equal prompts, equal pieces of prompts) are attended together, since sequences, like
heads, do not see each other.

Legend: B spans alike, T rows of the micro-batch, H query heads, Hk key heads, n new tokens of a span, m tokens of its
sequence, Dk and Dv sizes of keys and values.
"""

from collections.abc import Sequence

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.page_store import PageStore
from windlass.kernels.span_attention import span_attention
from windlass.kernels.token_span import TokenSpan


def prefill_attention(
    query: torch.Tensor,
    store: PageStore,
    alike: Sequence[TokenSpan],
    rule: AttentionRule,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """query (H, T, Dk) of the micro-batch, sinks (H,) -> (B, n, H, Dv); only pages a new token sees are read."""
    heads, size, span = query.shape[0], len(alike), alike[0]
    start = rule.first_visible(span.context)
    key, value = store.read_equal([span.pages for span in alike], span.total, start)
    rows = [query[:, span.row : span.row + span.length] for span in alike]
    stacked = rows[0] if size == 1 else torch.cat(rows)  # (B * H, n, Dk)
    repeated = None if sinks is None else sinks.repeat(size)
    out = span_attention(stacked, key, value, span.context, rule, repeated, start)  # (n, B * H, Dv)
    return out.view(span.length, size, heads, -1).transpose(0, 1)
