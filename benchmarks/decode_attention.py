"""Times decode attention over the paged store and prints the rate of keys and values beside the memory's read rate.

Run: PYTHONPATH=src python benchmarks/decode_attention.py [--rounds 9] [--page-tokens 64] [--long]
                                                         [--kv-cache-dtype int8]
Every case is verified against the reference on one of its sequences before it is timed.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.facts.cache_format import AS_COMPUTED, CacheFormat, cache_format
from windlass.facts.cache_shape import CacheShape
from windlass.kernels.attention import decode_sizes
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.backend import ProductChoice, choose_decode, choose_products, decode_backend
from windlass.kernels.decode_attention import decode_attention
from windlass.kernels.packed_pages import PackedPages, unpacked_tokens
from windlass.kernels.page_packing import pack_pages
from windlass.kernels.page_store import PAGE_TOKENS, PageStore
from windlass.kernels.reference_attention import reference_attention
from windlass.kernels.token_span import TokenSpan

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Case:
    """A decode group: the stored tokens of each sequence and the shape of the heads."""

    name: str
    lengths: Sequence[int]
    heads: int = 24
    key_heads: int = 8
    dim: int = 128
    dtype: torch.dtype = torch.bfloat16
    window: int | None = None
    kept_as: CacheFormat = AS_COMPUTED

    @property
    def read_bytes(self) -> int:
        """Bytes of keys and values that a perfect reader touches."""
        seen = sum(min(length, self.window or length) for length in self.lengths)
        page = self.kept_as.page_bytes(self.shape, PAGE_TOKENS, self.dtype.itemsize)
        return seen * page // PAGE_TOKENS

    @property
    def shape(self) -> CacheShape:
        """What is stored of a token."""
        return CacheShape(self.key_heads, self.dim, self.key_heads, self.dim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--page-tokens", type=int, default=PAGE_TOKENS)
    parser.add_argument("--kv-cache-dtype", default="auto", help="auto, int8 or int4: of full pages")
    parser.add_argument("--long", action="store_true", help="also 256 sequences of 512 tokens (0.5 GB)")
    options = parser.parse_args()
    torch.manual_seed(0)
    ragged = torch.randint(1, 2049, (32,)).tolist()
    cases = [
        Case("32 x 512", [512] * 32),
        Case("32 x 1..2048", ragged),
        Case("32 x 2048, window 512", [2048] * 32, window=512),
        Case("1 x 16384", [16384]),
        Case("32 x 512, 32 of 128", [512] * 32, heads=32, key_heads=32),
        Case("32 x 512, 32 of 64", [512] * 32, heads=32, key_heads=32, dim=64),
        Case("32 x 512, 64 over 8", [512] * 32, heads=64),
        Case("32 x 512, float32", [512] * 32, dtype=torch.float32),
        Case("32 x 512, float16", [512] * 32, dtype=torch.float16),
        Case("32 x 32", [32] * 32),
        Case("1 x 32", [32]),
    ]
    if options.long:
        cases.append(Case("256 x 512", [512] * 256))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, pages of {options.page_tokens} tokens")
    print(f"decode attends by: {decode_backend()}")
    print(f"{'case':24s} {'way':8s} {'best ms':>8s} {'median':>8s} {'GB/s':>6s} {'memory read GB/s':>17s}")
    for case in cases:
        case = replace(case, kept_as=cache_format(options.kv_cache_dtype))
        if case.kept_as.packs:
            # Only full pages are packed, and only they are measured.
            whole = [-(-length // options.page_tokens) * options.page_tokens for length in case.lengths]
            case = replace(case, lengths=whole)
        measure(case, options.page_tokens, options.rounds)


def measure(case: Case, page_tokens: int, rounds: int) -> None:
    """Prints a line for each way: the native kernel's, where there is one, and torch's."""
    rows = case.heads // case.key_heads
    choices = (choose_decode(case.dtype, CPU, rows), choose_products(case.dtype, CPU, rows))
    memory = torch.empty(128 << 20, dtype=torch.uint8).view(torch.float32).fill_(1)
    for choice in dict.fromkeys(choices):
        attend = prepare(case, page_tokens, choice)
        times, reads = [], []
        for _ in range(rounds):
            reads.append(seconds(memory.sum))
            times.append(seconds(attend))
        best, median = min(times), sorted(times)[rounds // 2]
        print(
            f"{case.name:24s} {choice.name:8s} {best * 1e3:8.3f} {median * 1e3:8.3f}"
            f" {case.read_bytes / best / 1e9:6.1f} {memory.nbytes / min(reads) / 1e9:17.1f}",
            flush=True,
        )


def prepare(case: Case, page_tokens: int, choice: ProductChoice) -> Callable[[], torch.Tensor]:
    """A store filled with random keys and values, verified; returns the call to time."""
    counts = [-(-length // page_tokens) for length in case.lengths]
    store = filled(case, sum(counts), page_tokens)
    pages = iter(range(sum(counts)))
    spans = [
        TokenSpan(row, 1, length - 1, [next(pages) for _ in range(count)])
        for row, (length, count) in enumerate(zip(case.lengths, counts, strict=True))
    ]
    rule = AttentionRule(case.dim**-0.5, window=case.window)
    plan = AttentionBatch(spans, page_tokens, "cpu").decode_plan(rule, decode_sizes(case.heads, store))
    query = torch.randn(len(spans), case.heads, case.dim).to(case.dtype)
    verify(decode_attention(query, store, plan, rule, None, choice), query, store, spans[-1], rule)
    return lambda: decode_attention(query, store, plan, rule, None, choice)


def filled(case: Case, pages: int, page_tokens: int) -> PageStore | PackedPages:
    """Pages of random keys and values."""
    heads = (case.key_heads, case.dim)
    if not case.kept_as.packs:
        store = PageStore(pages, page_tokens, *heads, *heads, case.dtype, "cpu")
        store.keys.normal_()
        store.values.normal_()
        return store
    page = case.kept_as.packed_page(case.shape, page_tokens)
    packed = torch.cat([
        pack_pages(*torch.randn(2, 1, case.key_heads, page_tokens, case.dim).unbind(0), page) for _ in range(pages)
    ])  # fmt: skip
    return PackedPages(packed, page, case.dtype)


def verify(
    out: torch.Tensor, query: torch.Tensor, store: PageStore | PackedPages, span: TokenSpan, rule: AttentionRule
) -> None:
    """Refuses to time what is wrong: the last sequence against float64."""
    if isinstance(store, PackedPages):
        key, value = unpacked_tokens(store.records(span.pages), store.page, torch.float64, 0, span.total)
    else:
        key, value = store.read(span.pages, span.total)
    wanted = reference_attention(query[span.row][:, None], key, value, span.context, rule)
    worst = (out[span.row] - wanted[0]).abs().max().item()
    # Codes are counted from the lowest number of their group, so a sum of them is larger than its result.
    limit = (32 if isinstance(store, PackedPages) else 4) * torch.finfo(out.dtype).eps * wanted.abs().max().item()
    assert worst <= limit, f"the result differs from float64 by {worst:.2e}, more than {limit:.2e}"


def seconds(call: Callable[[], torch.Tensor]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    with torch.inference_mode():
        main()
