"""Prefill attention where what came before lies in more than one memory: it is brought over in pieces.

T rows of a micro-batch; B spans alike of n rows, m tokens; H query heads; Hk, Hv heads and Dk, Dv sizes of keys and
values.
"""

from collections.abc import Callable, Sequence

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.partial_results import combine
from windlass.kernels.span_attention import finish, partial_attention
from windlass.kernels.token_span import TokenSpan

# Tokens of context that are brought over at once.
CONTEXT_PIECE = 4096

Partial = tuple[torch.Tensor, torch.Tensor]
Read = Callable[[TokenSpan, int, int], Partial]


def prefill_rows(
    out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: Sequence[Sequence[TokenSpan]],
    rule: AttentionRule,
    sinks: torch.Tensor | None,
    read: Read,
) -> None:
    """Fills the rows of `out` (T, H, Dv) that belong to prompts, a group of spans alike after the other.

    key (Hk, T, Dk) and value (Hv, T, Dv) are the new tokens'; of a layer that shares another's store there are none.
    """
    fresh = (key, value) if key.shape[1] == query.shape[1] else None
    for alike in groups:
        attended = context_attention(query, fresh, alike, rule, sinks, read)
        for span, rows in zip(alike, attended, strict=True):
            out[span.row : span.row + span.length] = rows


def context_attention(
    query: torch.Tensor,
    fresh: Partial | None,
    alike: Sequence[TokenSpan],
    rule: AttentionRule,
    sinks: torch.Tensor | None,
    read: Read,
) -> torch.Tensor:
    """query (H, T, Dk) -> (B, n, H, Dv).

    `fresh` are the new tokens' keys (Hk, T, Dk) and values (Hv, T, Dv), if they came along; `read(span, stop, start)`
    gives stored ones where the query is.
    """
    span, size = alike[0], len(alike)
    stacked = torch.cat([query[:, each.row : each.row + each.length] for each in alike])  # (B * H, n, Dk)
    stored = span.context if fresh is not None else span.total
    results = []
    for at in range(rule.first_visible(span.context), stored, CONTEXT_PIECE):
        pieces = [read(each, min(at + CONTEXT_PIECE, stored), at) for each in alike]
        key, value = torch.cat([key for key, _ in pieces]), torch.cat([value for _, value in pieces])
        results.append(partial_attention(stacked, key, value, span.context, rule, at))
    if fresh is not None:
        key, value = (torch.cat([each[:, s.row : s.row + s.length] for s in alike]) for each in fresh)
        results.append(partial_attention(stacked, key, value, span.context, rule, span.context))
    whole = results[0]
    for result in results[1:]:
        whole = combine(whole, result)
    out = finish(*whole, None if sinks is None else sinks.repeat(size)).to(query.dtype)  # (B * H, n, Dv)
    return out.unflatten(0, (size, -1)).transpose(1, 2)
