"""Decode attention by the native kernel, over the same store and plan as the torch path.

Legend: S sequences, U runs, H query heads, Hk key heads, G = H / Hk, Dk and Dv sizes of keys and values.
"""

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.decode_runs import DecodeRuns
from windlass.kernels.native.library import DecodeJob, NativeLibrary
from windlass.kernels.native.loading import KINDS
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_store import PageStore

MOST_VALUE_GROUPS = 16
"""Groups of a packed value that the kernel has room for; VALUE_GROUPS of the C source."""


def native_decode(
    library: NativeLibrary, query: torch.Tensor, store: PageStore | PackedPages, runs: DecodeRuns, rule: AttentionRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (S, H, Dk) -> out (S, H, Dv) and log-sum-exp (S, H), float32. See `partial_decode`."""
    (sequences, heads, key_dim), key_heads, value_dim = query.shape, store.key_heads, store.value_dim
    query, threads, group = query.contiguous(), torch.get_num_threads(), heads // key_heads
    # What torch would check itself: the kernel reads where it is told.
    assert runs.highest_page < store.num_pages and runs.sequences == sequences and heads % key_heads == 0
    out = torch.empty(sequences, heads, value_dim, dtype=torch.float32)
    log_sum = torch.empty(sequences, heads, dtype=torch.float32)
    partial, partial_log = (out, log_sum) if runs.one_each else (
        torch.empty(runs.count, heads, value_dim), torch.empty(runs.count, heads)
    )  # fmt: skip
    if isinstance(store, PackedPages):
        keys, values, packed = *_checked_packed(store, key_dim), _layout(store)
        scratch = torch.empty(threads, library.packed_scratch(group, key_dim, store.page.bits))
    else:
        keys, values, packed = *_checked(store, query), (0, 0, 0, 0, 0, 0)
        scratch = torch.empty(threads, library.scratch(group, key_dim))
    library.decode(
        DecodeJob(
            query.data_ptr(), keys, values,
            runs.page.data_ptr(), runs.start.data_ptr(), runs.stop.data_ptr(), runs.first.data_ptr(),
            runs.owner.data_ptr(), partial.data_ptr(), partial_log.data_ptr(), out.data_ptr(), log_sum.data_ptr(),
            scratch.data_ptr(),
            KINDS[query.dtype], sequences, runs.count, heads, key_heads, store.page_tokens, key_dim, value_dim, threads,
            scratch.shape[1], *packed, rule.scaling, rule.softcap or 0.0,
        )
    )  # fmt: skip
    return out, log_sum


def _checked(store: PageStore, query: torch.Tensor) -> tuple[int, int]:
    """Where keys and values begin."""
    keys, values = store.keys, store.values
    assert keys.shape == (*values.shape[:3], query.shape[2])
    assert query.dtype == keys.dtype == values.dtype and keys.is_contiguous() and values.is_contiguous()
    return keys.data_ptr(), values.data_ptr()


def _checked_packed(store: PackedPages, key_dim: int) -> tuple[int, int]:
    """Where the packed pages begin."""
    page = store.page
    assert page.shape.key_heads == page.shape.value_heads and page.shape.key_dim == key_dim
    assert page.value_groups <= MOST_VALUE_GROUPS and page.bits in (4, 8)
    return store.packed.data_ptr(), 0


def _layout(store: PackedPages) -> tuple[int, int, int, int, int, int]:
    page = store.page
    return page.bits, page.nbytes, page.key_scales_at, page.values_at, page.value_scales_at, page.value_group
