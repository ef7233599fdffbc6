"""How fast attention runs here through our own kernels, with keys and values that come from memory and not from cache.

Legend: H query heads, Hk key heads, G = H / Hk, D size of a head.
"""

import time
from collections.abc import Sequence
from itertools import cycle

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.facts.rate_curve import RateCurve
from windlass.kernels.attention import paged_attention
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.page_store import PAGE_TOKENS, PageStore
from windlass.kernels.token_span import TokenSpan
from windlass.memory.timing import typical_seconds
from windlass.units import MIB

GROUPS = (1, 2, 4, 8, 16)
PROMPTS = (16, 64, 256, 512, 1024, 2048)
# The stores of the layers, one after another, are together larger than a processor's last cache.
COLD_BYTES = 192 * MIB
# Seconds after which no further point of a curve is begun, on a slow or busy machine.
MOST_SECONDS = 5.0


def measure_decode_attention(
    dtype: torch.dtype,
    device: torch.device,
    groups: Sequence[int] = GROUPS,
    sequences: int = 16,
    context: int = 512,
    key_heads: int = 8,
    head_dim: int = 128,
    seconds: float = 0.2,
    cold_bytes: int = COLD_BYTES,
) -> RateCurve:
    """Bytes/s of keys and values by G: `sequences` of one new token each, `context` tokens held of each."""
    pages = -(-context // PAGE_TOKENS)
    spans = [TokenSpan(i, 1, context - 1, range(i * pages, (i + 1) * pages)) for i in range(sequences)]
    nbytes = 2 * sequences * context * key_heads * head_dim * dtype.itemsize
    stores = _stores(max(1, -(-cold_bytes // nbytes)), sequences * pages, key_heads, head_dim, dtype, device)
    points: list[tuple[int, float]] = []
    begun = time.perf_counter()
    for group in groups:
        if points and time.perf_counter() - begun > MOST_SECONDS:
            break
        query = torch.ones(group * key_heads, sequences, head_dim, dtype=dtype, device=device)
        points.append((group, nbytes / _seconds(query, stores, spans, seconds)))
    return RateCurve(tuple(points))


def measure_prefill_attention(
    dtype: torch.dtype,
    device: torch.device,
    prompts: Sequence[int] = PROMPTS,
    heads: int = 24,
    key_heads: int = 8,
    head_dim: int = 128,
    rows: int = 512,
    seconds: float = 0.2,
) -> RateCurve:
    """Flops/s by tokens of the prompt; only pairs of a token with itself or an earlier one are counted.

    Short prompts come packed, at least `rows` tokens in all, as the engine runs them.
    """
    points: list[tuple[int, float]] = []
    begun = time.perf_counter()
    for length in prompts:
        if points and time.perf_counter() - begun > MOST_SECONDS:
            break
        count = max(1, rows // length)
        pages = -(-length // PAGE_TOKENS)
        spans = [TokenSpan(i * length, length, 0, range(i * pages, (i + 1) * pages)) for i in range(count)]
        stores = _stores(1, count * pages, key_heads, head_dim, dtype, device)
        query = torch.ones(heads, count * length, head_dim, dtype=dtype, device=device)
        flops = 4 * heads * head_dim * count * length * (length + 1) / 2
        points.append((length, flops / _seconds(query, stores, spans, seconds)))
    return RateCurve(tuple(points))


def _stores(
    count: int, pages: int, key_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> list[PageStore]:
    stores = [
        PageStore(pages, PAGE_TOKENS, key_heads, head_dim, key_heads, head_dim, dtype, device) for _ in range(count)
    ]
    for store in stores:
        store.keys.fill_(0.5)
        store.values.fill_(0.5)
    return stores


@torch.inference_mode()
def _seconds(query: torch.Tensor, stores: Sequence[PageStore], spans: Sequence[TokenSpan], seconds: float) -> float:
    """Of one layer's attention; what is planned once a pass for all layers is not in it."""
    batch = AttentionBatch(spans, PAGE_TOKENS, query.device)
    rule = AttentionRule(scaling=query.shape[-1] ** -0.5)
    turn = cycle(stores)
    paged_attention(query, next(turn), batch, rule)
    return typical_seconds(lambda: paged_attention(query, next(turn), batch, rule), query.device, seconds)
