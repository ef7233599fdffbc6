"""The ladder of ways to do decode attention on the CPU: every rung on the same 32 sequences of 512 tokens.

Run: PYTHONPATH=src python dev/decode_attention.py [sequences [key heads of 24]]; the winner is in windlass.kernels.
Legend: S sequences, L tokens each, P tokens a page, H query heads, Hk key heads, G = H / Hk, D size of a head.
"""

import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.backend import ProductChoice
from windlass.kernels.decode_attention import decode_attention
from windlass.kernels.decode_plan import DecodeSizes
from windlass.kernels.page_store import PageStore
from windlass.kernels.token_span import TokenSpan

S, HK = (int(number) for number in (*sys.argv[1:], "32", "8")[:2])
L, H, D = 512, 24, 128
SCALING, ROUNDS = D**-0.5, 15
KEY_VALUE_BYTES = S * L * HK * D * 2 * 2


def best_ms(call: Callable[[], object]) -> float:
    """The least of several rounds: other work on the machine only ever adds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def show(name: str, call: Callable[[], object]) -> None:
    milliseconds = best_ms(call)
    print(f"{name:58s} {milliseconds:8.2f} ms {KEY_VALUE_BYTES / milliseconds / 1e6:6.1f} GB/s", flush=True)


def dense_rungs() -> None:
    """Keys and values as one padded tensor, which is what a cache without pages gives."""
    key, value = torch.randn(2, S, HK, L, D, dtype=torch.bfloat16)
    query = torch.randn(S, H, 1, D, dtype=torch.bfloat16)
    grouped = query.view(S, HK, H // HK, D)
    sdpa = functional.scaled_dot_product_attention
    mask = torch.zeros(S, 1, 1, L, dtype=torch.bfloat16)
    show("SDPA with a padding mask", lambda: sdpa(query, key, value, mask, enable_gqa=True))
    show("loop over sequences, SDPA", lambda: [
        sdpa(query[i : i + 1], key[i : i + 1], value[i : i + 1], enable_gqa=True) for i in range(S)
    ])  # fmt: skip
    show("SDPA, heads of a group as query rows", lambda: sdpa(grouped, key, value))
    show("products in bfloat16, one call each", lambda: (
        (grouped @ key.transpose(2, 3)).mul_(SCALING).softmax(-1) @ value
    ))  # fmt: skip


def paged_rungs(page_tokens: int) -> None:
    """The package's decode attention with one thing changed at a time."""
    count = L // page_tokens
    store = PageStore(S * count, page_tokens, HK, D, HK, D, torch.bfloat16, "cpu")
    store.keys.normal_()
    store.values.normal_()
    query, rule = torch.randn(S, H, D, dtype=torch.bfloat16), AttentionRule(SCALING)
    in_order = [list(range(row * count, (row + 1) * count)) for row in range(S)]
    shuffled = torch.randperm(S * count).view(S, count).tolist()

    def rung(name: str, pages: list[list[int]], block_mib: float, way: str) -> None:
        batch = AttentionBatch([TokenSpan(row, 1, L - 1, pages[row]) for row in range(S)], page_tokens, "cpu")
        block_pages = max(1, int(block_mib * 2**20 / store.keys[0].numel() / 2))
        plan = batch.decode_plan(rule, DecodeSizes(block_pages, 1000, H))
        choice = ProductChoice(way, "a rung of the ladder")
        show(f"pages of {page_tokens}, {name}", lambda: decode_attention(query, store, plan, rule, None, choice))

    for block_mib in (0.5, 1, 2, 4, 8, 32):
        rung(f"paired products, blocks of {block_mib} MiB", in_order, block_mib, "paired")
    rung("widened to float32, blocks of 2 MiB", in_order, 2, "widened")
    rung("widened to float32, blocks of 4 MiB", in_order, 4, "widened")
    rung("paired, pages of sequences shuffled", shuffled, 4, "paired")


if __name__ == "__main__":
    with torch.inference_mode():
        memory = torch.ones(64 << 20)
        print(f"torch {torch.__version__}, memory is read at {memory.nbytes / best_ms(memory.sum) / 1e6:.1f} GB/s")
        dense_rungs()
        for tokens in (64, 128):
            paged_rungs(tokens)
