"""Attention of many sequences that bring one token each: reads keys and values once, at close to the speed of memory.

Every page is one element of a batched product for each key head, whichever sequence owns it, so there is no loop over
sequences and no padding. Pages give partial results that combine exactly by their log-sum-exp, as in Flash-Decoding
(Dao, Haziza, Massa and Sizov, 2023). The variants that were measured are in dev/decode_attention.md.

Legend: S sequences, n items of a block (pages with their owner), N items of a wave of blocks, P tokens a page, H query
heads, Hk key heads, G = H / Hk, Dk and Dv sizes of keys and values.
"""

import torch
from torch.nn import functional

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.backend import ProductChoice, choose_decode, choose_products
from windlass.kernels.cuda.decode import device_decode
from windlass.kernels.decode_plan import DecodeBlock, DecodePlan, DecodeWave
from windlass.kernels.native.decode import MOST_VALUE_GROUPS, native_decode
from windlass.kernels.native.library import NativeLibrary, native_library
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_store import PageStore
from windlass.kernels.partial_results import combine
from windlass.kernels.products import score_products, value_products


def decode_attention(
    query: torch.Tensor,
    store: PageStore | PackedPages,
    plan: DecodePlan,
    rule: AttentionRule,
    sinks: torch.Tensor | None = None,
    choice: ProductChoice | None = None,
) -> torch.Tensor:
    """query (S, H, Dk), sinks (H,) -> (S, H, Dv). `choice` overrides the way of multiplying, for tests."""
    return finish_decode(partial_decode(query, store, plan, rule, choice), sinks).to(query.dtype)


def partial_decode(
    query: torch.Tensor,
    store: PageStore | PackedPages,
    plan: DecodePlan,
    rule: AttentionRule,
    choice: ProductChoice | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (S, H, Dk) -> out (S, H, Dv) and log-sum-exp (S, H) over the plan's pages, which must be some.

    A sequence of which the plan reads nothing has out 0 and log-sum-exp -inf.
    """
    rows = query.shape[1] // store.key_heads
    if isinstance(store, PackedPages) and store.page.value_groups > MOST_VALUE_GROUPS:
        choice = choice or choose_products(query.dtype, query.device, rows)
    choice = choice or choose_decode(query.dtype, query.device, rows)
    if choice.name == "device" and isinstance(store, PackedPages):
        choice = choose_products(query.dtype, query.device, rows)
    if choice.name == "device":
        products = choose_products(query.dtype, query.device, rows)
        return device_decode(query, store, plan, rule, lambda: partial_decode(query, store, plan, rule, products))
    library = native_library() if choice.name == "native" else None
    if isinstance(library, NativeLibrary):
        return native_decode(library, query, store, plan.runs, rule)
    if plan.single:
        return _attend_block(query, store, plan.waves[0].blocks[0], rule, choice)
    out, log_sum = _attend_wave(query, store, plan.waves[0], rule, choice)
    for wave in plan.waves[1:]:
        out, log_sum = combine((out, log_sum), _attend_wave(query, store, wave, rule, choice))
    return out, log_sum


def finish_decode(partial: tuple[torch.Tensor, torch.Tensor], sinks: torch.Tensor | None) -> torch.Tensor:
    """Lets the sinks (H,) take their share of out (S, H, Dv), whose log-sum-exp is (S, H)."""
    out, log_sum = partial
    return out if sinks is None else out * torch.sigmoid(log_sum - sinks.float())[..., None]


def _attend_wave(
    query: torch.Tensor, store: PageStore | PackedPages, wave: DecodeWave, rule: AttentionRule, choice: ProductChoice
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (S, H, Dk) -> out (S, H, Dv), log-sum-exp (S, H), both float32, over the wave's pages."""
    partial = query.new_empty(wave.items, query.shape[1], store.value_dim, dtype=torch.float32)
    log_sum = query.new_empty(wave.items, query.shape[1], dtype=torch.float32)
    for block in wave.blocks:
        items = slice(block.first, block.first + block.items)
        partial[items], log_sum[items] = _attend_block(query, store, block, rule, choice)
    return _add_up(partial, log_sum, wave)


def _attend_block(
    query: torch.Tensor, store: PageStore | PackedPages, block: DecodeBlock, rule: AttentionRule, choice: ProductChoice
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (S, H, Dk) -> out (n, H, Dv), log-sum-exp (n, H) of the block's items."""
    heads, key_dim, kv_heads, page_tokens = *query.shape[1:], store.key_heads, store.page_tokens
    grouped = query.index_select(0, block.owner).view(block.items * kv_heads, -1, key_dim)  # (n * Hk, G, Dk)
    scores = score_products(grouped, store.key_pages(block.pages).flatten(0, 1).transpose(1, 2), rule.scaling, choice)
    if rule.softcap is not None:
        scores.div_(rule.softcap).tanh_().mul_(rule.softcap)
    _hide(scores.view(block.items, kv_heads, -1, page_tokens), block)
    weights = scores.softmax(-1)
    # The largest weight is exp(largest score - log-sum-exp): cheaper than a logsumexp beside the softmax.
    log_sum = scores.amax(-1).sub_(weights.amax(-1).log_())
    out = value_products(weights, store.value_pages(block.pages).flatten(0, 1), choice)
    return out.view(block.items, heads, -1), log_sum.view(block.items, heads)


def _hide(scores: torch.Tensor, block: DecodeBlock) -> None:
    """Replaces (never adds to: stale slots hold anything) the hidden scores (n, Hk, G, P) by -inf."""
    if block.hidden is None:
        return
    if block.edge is None:
        scores.masked_fill_(block.hidden, -torch.inf)
        return
    scores.index_copy_(0, block.edge, scores.index_select(0, block.edge).masked_fill_(block.hidden, -torch.inf))


def _add_up(partial: torch.Tensor, log_sum: torch.Tensor, wave: DecodeWave) -> tuple[torch.Tensor, torch.Tensor]:
    """partial (N, H, Dv), log_sum (N, H) of items -> out (S, H, Dv), log-sum-exp (S, H) of sequences."""
    ordered = log_sum.index_select(0, wave.order)  # (r, H)
    largest = torch.segment_reduce(ordered, "max", lengths=wave.counts, axis=0)  # (S, H)
    shares = ordered.sub_(largest.index_select(0, wave.owner)).exp_()
    totals = torch.segment_reduce(shares, "sum", lengths=wave.counts, axis=0)
    shares.div_(totals.index_select(0, wave.owner))
    by_item = torch.zeros_like(log_sum).index_copy_(0, wave.order, shares).flatten()
    out = functional.embedding_bag(
        wave.head_order, partial.flatten(0, 1), wave.head_offsets, mode="sum",
        per_sample_weights=by_item.index_select(0, wave.head_order),
    )  # fmt: skip
    return out.view(*largest.shape, -1), largest.add_(totals.log_())
