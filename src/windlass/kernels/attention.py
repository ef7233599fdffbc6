"""Attention of a packed micro-batch over the paged store: the only place that knows where a sequence begins and ends.

Legend: H query heads, Hk key heads, T rows of the micro-batch, Dk and Dv sizes of keys and values.
"""

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.decode_attention import decode_attention
from windlass.kernels.decode_plan import DecodeSizes
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_store import PageStore
from windlass.kernels.prefill_attention import prefill_attention
from windlass.units import MIB

CACHE_BLOCK_BYTES = 4 * MIB
"""Keys of a decode block on the CPU: they stay in the last cache until the second product."""
DEVICE_BLOCK_BYTES = 256 * MIB
"""On a GPU: large enough that launches do not count."""

WAVE_BYTES = 16 * MIB
"""Partial results of decode blocks held before they are added up."""


def paged_attention(
    query: torch.Tensor,
    store: PageStore,
    batch: AttentionBatch,
    rule: AttentionRule,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """query (H, T, Dk), sinks (H,) -> (T, H, Dv); the new tokens' keys and values are already in the store."""
    if not batch.prefill_spans:
        return _decode(query.transpose(0, 1), store, batch, rule, sinks)
    out = query.new_empty(query.shape[1], query.shape[0], store.values.shape[-1])
    for alike in batch.prefill_groups:
        attended = prefill_attention(query, store, alike, rule, sinks)
        for span, rows in zip(alike, attended, strict=True):
            out[span.row : span.row + span.length] = rows
    if batch.decode_spans:
        decoding = query.index_select(1, batch.decode_rows).transpose(0, 1)
        out[batch.decode_rows] = _decode(decoding, store, batch, rule, sinks)
    return out


def _decode(
    query: torch.Tensor, store: PageStore, batch: AttentionBatch, rule: AttentionRule, sinks: torch.Tensor | None
) -> torch.Tensor:
    """query (S, H, Dk) -> (S, H, Dv)."""
    plan = batch.decode_plan(rule, decode_sizes(query.shape[1], store))
    return decode_attention(query, store, plan, rule, sinks)


def decode_sizes(heads: int, store: PageStore | PackedPages) -> DecodeSizes:
    """How many pages of `store` are read together for `heads` query heads."""
    block_bytes = CACHE_BLOCK_BYTES if store.device.type == "cpu" else DEVICE_BLOCK_BYTES
    block_pages = max(1, block_bytes // store.key_page_bytes)
    result_bytes = block_pages * heads * store.value_dim * 4
    return DecodeSizes(block_pages, max(1, WAVE_BYTES // result_bytes), heads)
