"""Decode attention by the native kernel, over the same store and plan as the torch path.

Legend: S sequences, U runs, H query heads, Hk key heads, G = H / Hk, Dk and Dv sizes of keys and values.
"""

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.decode_runs import DecodeRuns
from windlass.kernels.native.library import DecodeJob, NativeLibrary
from windlass.kernels.native.loading import KINDS
from windlass.kernels.page_store import PageStore


def native_decode(
    library: NativeLibrary, query: torch.Tensor, store: PageStore, runs: DecodeRuns, rule: AttentionRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (S, H, Dk) -> out (S, H, Dv) and log-sum-exp (S, H), float32. See `partial_decode`."""
    (sequences, heads, key_dim), (pages, key_heads, page_tokens, value_dim) = query.shape, store.values.shape
    query, threads = query.contiguous(), torch.get_num_threads()
    keys, values = store.keys, store.values
    # What torch would check itself: the kernel reads where it is told.
    assert keys.shape == (pages, key_heads, page_tokens, key_dim) and heads % key_heads == 0
    assert query.dtype == keys.dtype == values.dtype and keys.is_contiguous() and values.is_contiguous()
    assert runs.highest_page < pages and runs.sequences == sequences
    out = torch.empty(sequences, heads, value_dim, dtype=torch.float32)
    log_sum = torch.empty(sequences, heads, dtype=torch.float32)
    partial, partial_log = (out, log_sum) if runs.one_each else (
        torch.empty(runs.count, heads, value_dim), torch.empty(runs.count, heads)
    )  # fmt: skip
    scratch = torch.empty(threads, library.scratch(heads // key_heads, key_dim))
    library.decode(
        DecodeJob(
            query.data_ptr(), keys.data_ptr(), values.data_ptr(),
            runs.page.data_ptr(), runs.start.data_ptr(), runs.stop.data_ptr(), runs.first.data_ptr(),
            runs.owner.data_ptr(), partial.data_ptr(), partial_log.data_ptr(), out.data_ptr(), log_sum.data_ptr(),
            scratch.data_ptr(),
            KINDS[query.dtype], sequences, runs.count, heads, key_heads, page_tokens, key_dim, value_dim, threads,
            scratch.shape[1], rule.scaling, rule.softcap or 0.0,
        )
    )  # fmt: skip
    return out, log_sum
