"""The definition of correct: one sequence, one head at a time, every score held at once. Used by tests only.

Legend: H query heads, Hk key heads, n queries, m keys, Dk and Dv sizes of keys and values.
"""

import torch

from windlass.facts.attention_rule import AttentionRule


def reference_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    first_query_position: int,
    rule: AttentionRule,
    sinks: torch.Tensor | None = None,
    first_key_position: int = 0,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """query (H, n, Dk), key (Hk, m, Dk), value (Hk, m, Dv), sinks (H,) -> (n, H, Dv), computed in `dtype`."""
    heads, queries, _ = query.shape
    group = heads // key.shape[0]
    q_position = first_query_position + torch.arange(queries, device=query.device)[:, None]
    k_position = first_key_position + torch.arange(key.shape[1], device=query.device)[None]
    visible = _visible(q_position, k_position, rule)
    out = torch.empty(queries, heads, value.shape[-1], dtype=dtype, device=query.device)
    for head in range(heads):
        scores = query[head].to(dtype) @ key[head // group].to(dtype).T * rule.scaling  # (n, m)
        if rule.softcap is not None:
            scores = torch.tanh(scores / rule.softcap) * rule.softcap
        scores = scores.masked_fill(~visible, -torch.inf)
        if sinks is not None:
            scores = torch.cat([scores, sinks[head].to(dtype).expand(queries, 1)], dim=-1)
        weights = scores.softmax(-1)[:, : key.shape[1]]
        out[:, head] = weights @ value[head // group].to(dtype)
    return out


def _visible(q_position: torch.Tensor, k_position: torch.Tensor, rule: AttentionRule) -> torch.Tensor:
    """(n, 1) and (1, m) positions -> (n, m) bool."""
    visible = k_position <= q_position
    if rule.window is not None:
        visible &= q_position - k_position < rule.window
    if rule.chunk is not None:
        visible &= q_position // rule.chunk == k_position // rule.chunk
    return visible
