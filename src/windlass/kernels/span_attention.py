"""Attention of one sequence's queries over dense keys and values, in blocks, so that scratch stays small.

Legend: H query heads, Hk key heads, G = H / Hk, n queries, m keys, b queries of a block, Dk and Dv sizes.
A piece of the keys gives a partial result and the logarithm of its softmax denominator; pieces combine exactly
(Dao et al., FlashAttention, 2022, and Milakov and Gimelshein, Online normalizer calculation for softmax, 2018).
"""

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.backend import ProductChoice, choose_products
from windlass.kernels.partial_results import combine
from windlass.kernels.products import score_products, value_products
from windlass.units import MIB

SCRATCH_BYTES = 12 * MIB
BYTES_PER_SCORE = 12
"""What a block holds for each score: two float32 and two 16-bit numbers."""
QUERY_BLOCK, KEY_PIECE = 64, 4096


def span_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    first_query_position: int,
    rule: AttentionRule,
    sinks: torch.Tensor | None = None,
    first_key_position: int = 0,
) -> torch.Tensor:
    """query (H, n, Dk), key (Hk, m, Dk), value (Hk, m, Dv), sinks (H,) -> (n, H, Dv) in the query's dtype."""
    out, log_sum = partial_attention(query, key, value, first_query_position, rule, first_key_position)
    return finish(out, log_sum, sinks).transpose(0, 1).to(query.dtype, memory_format=torch.contiguous_format)


def partial_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    first_query_position: int,
    rule: AttentionRule,
    first_key_position: int = 0,
    choice: ProductChoice | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `span_attention` over a piece of the keys -> out (H, n, Dv) and log-sum-exp (H, n), both float32.

    A query that sees no key of the piece has out 0 and log-sum-exp -inf. `choice` overrides the products, for tests.
    """
    (heads, queries, _), (kv_heads, keys, _) = query.shape, key.shape
    out = query.new_zeros(heads, queries, value.shape[-1], dtype=torch.float32)
    log_sum = query.new_full((heads, queries), -torch.inf, dtype=torch.float32)
    group = heads // kv_heads
    block, together = _block_sizes(group, kv_heads, min(keys, KEY_PIECE))
    choice = choice or choose_products(query.dtype, query.device, group * min(block, queries))
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        low = max(0, rule.first_visible(first_query_position + start) - first_key_position)
        high = min(keys, rule.visible_stop(first_query_position + stop - 1) - first_key_position)
        for head in range(0, kv_heads, together):
            kv = slice(head, head + together)
            mine = slice(head * group, (head + together) * group)
            for at in range(low, high, KEY_PIECE):
                end = min(at + KEY_PIECE, high)
                piece = _attend_block(
                    query[mine, start:stop], key[kv, at:end], value[kv, at:end],
                    first_query_position + start, first_key_position + at, rule, choice,
                )  # fmt: skip
                if at > low:
                    piece = combine((out[mine, start:stop], log_sum[mine, start:stop]), piece)
                out[mine, start:stop], log_sum[mine, start:stop] = piece
    return out, log_sum


def finish(out: torch.Tensor, log_sum: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Lets the sinks (H,) take their share of out (H, n, Dv), whose log-sum-exp is (H, n)."""
    if sinks is None:
        return out
    return out * torch.sigmoid(log_sum - sinks.float()[:, None])[..., None]


def _block_sizes(group: int, kv_heads: int, keys: int) -> tuple[int, int]:
    """Queries of a block and key heads attended together, so that a block's scores stay inside SCRATCH_BYTES."""
    scores = SCRATCH_BYTES // BYTES_PER_SCORE
    block = min(QUERY_BLOCK, max(1, scores // (group * max(1, keys))))
    return block, min(kv_heads, max(1, scores // (group * block * max(1, keys))))


def _attend_block(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    query_position: int, key_position: int, rule: AttentionRule, choice: ProductChoice,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """query (h, b, Dk), key (hk, m, Dk), value (hk, m, Dv) -> out (h, b, Dv), log-sum-exp (h, b)."""
    (heads, queries, key_dim), (kv_heads, keys, _) = query.shape, key.shape
    grouped = query.reshape(kv_heads, -1, key_dim)  # (hk, G * b, Dk)
    scores = score_products(grouped, key.transpose(1, 2), rule.scaling, choice)
    if rule.softcap is not None:
        scores.div_(rule.softcap).tanh_().mul_(rule.softcap)
    _hide(scores.view(heads, queries, keys), query_position, key_position, rule)
    weights = scores.softmax(-1)
    # The largest weight is exp(largest score - log-sum-exp): cheaper than a logsumexp beside the softmax.
    largest = scores.amax(-1)
    log_sum = largest - weights.amax(-1).log_()
    blind = largest == -torch.inf
    if _may_be_blind(rule) or rule.visible_stop(query_position) <= key_position:
        weights.masked_fill_(blind[..., None], 0)
        log_sum.masked_fill_(blind, -torch.inf)
    out = value_products(weights, value, choice)
    return out.view(heads, queries, -1), log_sum.view(heads, queries)


def _may_be_blind(rule: AttentionRule) -> bool:
    """Whether a query may see no key of a piece though the piece begins before it."""
    return rule.window is not None or rule.chunk is not None or rule.open_page is not None


def _hide(scores: torch.Tensor, query_position: int, key_position: int, rule: AttentionRule) -> None:
    """Replaces what scores (h, b, m) must not see by -inf; the run of keys that all queries see is left alone."""
    queries, keys = scores.shape[1:]
    q = torch.arange(query_position, query_position + queries, device=scores.device)[:, None]
    k = torch.arange(key_position, key_position + keys, device=scores.device)[None]
    shared = min(keys, max(0, rule.visible_stop(query_position) - key_position))
    stop = q + 1 if rule.full_pages is None else (q + 1) // rule.full_pages * rule.full_pages
    if not _may_be_blind(rule):
        scores[..., shared:].masked_fill_(k[:, shared:] >= stop, -torch.inf)
        return
    hidden = k >= stop
    if rule.window is not None:
        hidden |= q - k >= rule.window
    if rule.chunk is not None:
        hidden |= q // rule.chunk != k // rule.chunk
    if rule.open_page is not None:
        hidden |= k < (q + 1) // rule.open_page * rule.open_page
    scores.masked_fill_(hidden, -torch.inf)
