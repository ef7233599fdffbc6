"""The native kernel over packed pages gives what their numbers give, as exactly as torch in the model's precision."""

import pytest
import torch

from attention_world import RULES
from windlass.facts.attention_rule import AttentionRule
from windlass.facts.cache_shape import CacheShape
from windlass.facts.packed_page import PackedPage
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.backend import choose_products
from windlass.kernels.decode_attention import partial_decode
from windlass.kernels.decode_plan import DecodePlan, DecodeSizes, full_reads
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.decode import native_decode
from windlass.kernels.native.library import NativeLibrary, native_library
from windlass.kernels.packed_pages import PackedPages, unpacked_tokens
from windlass.kernels.page_packing import pack_pages
from windlass.kernels.reference_attention import reference_attention
from windlass.kernels.token_span import TokenSpan

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = {
    "3 rows of 128": (6, CacheShape(2, 128, 2, 128)),
    "1 row of 64": (2, CacheShape(2, 64, 2, 64)),
    "7 rows, odd sizes": (7, CacheShape(1, 19, 1, 5)),
    "2 rows, keys of 24, values of 192": (4, CacheShape(2, 24, 2, 192)),
}


@pytest.fixture(scope="module")
def library() -> NativeLibrary:
    """The one of this machine, or the reason why its tests are skipped."""
    found = native_library()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


class Decode:
    """Sequences of full pages only, scattered in a store whose other pages are poison."""

    def __init__(
        self, heads: int, shape: CacheShape, bits: int, dtype: torch.dtype, rule: AttentionRule, tokens: int = 64
    ) -> None:
        torch.manual_seed(3)
        counts = (1, 2, 11, 3)
        self.page, self.rule, self.dtype = PackedPage(shape, tokens, bits), rule, dtype
        order = torch.randperm(sum(counts) + 4)[: sum(counts)]
        packed = torch.full((sum(counts) + 4, self.page.nbytes), 255, dtype=torch.uint8)
        key = torch.randn(len(order), shape.key_heads, tokens, shape.key_dim) + 4 * torch.randn(shape.key_dim)
        value = torch.randn(len(order), shape.value_heads, tokens, shape.value_dim) + 1
        packed[order] = pack_pages(key, value, self.page)
        self.store = PackedPages(packed, self.page, dtype)
        pages = iter(order.tolist())
        self.spans = [TokenSpan(i, 1, n * tokens - 1, [next(pages) for _ in range(n)]) for i, n in enumerate(counts)]
        self.query = torch.randn(len(counts), heads, shape.key_dim).to(dtype)

    def plan(self) -> DecodePlan:
        sizes = DecodeSizes(8, 8, self.query.shape[1])
        return AttentionBatch(self.spans, self.page.tokens, "cpu").decode_plan(self.rule, sizes, full_reads)

    def by_torch(self) -> torch.Tensor:
        choice = choose_products(self.dtype, torch.device("cpu"), 4)
        return partial_decode(self.query, self.store, self.plan(), self.rule, choice)[0]

    def reference(self) -> torch.Tensor:
        """(S, H, Dv), float64, of the packed numbers themselves."""
        results = []
        for span, query in zip(self.spans, self.query, strict=True):
            records = self.store.records(span.pages)
            key, value = unpacked_tokens(records, self.page, torch.float64, 0, span.total)
            results.append(reference_attention(query[:, None], key, value, span.context, self.rule))
        return torch.cat(results)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "shape"), SHAPES.values(), ids=SHAPES)
def test_no_less_exact_than_torch(
    library: NativeLibrary, heads: int, shape: CacheShape, dtype: torch.dtype, bits: int
) -> None:
    decode = Decode(heads, shape, bits, dtype, AttentionRule(shape.key_dim**-0.5))
    wanted = decode.reference()
    out, _ = native_decode(library, decode.query, decode.store, decode.plan().runs, decode.rule)
    error = (out - wanted).abs().max().item()
    assert error <= 2 * (decode.by_torch() - wanted).abs().max().item() + 1e-6
    assert error < 1e-4, "the numbers are the same, so only sums in float32 may differ"


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_and_pages_of_few_tokens(library: NativeLibrary, rule: AttentionRule) -> None:
    decode = Decode(6, CacheShape(2, 16, 2, 16), 4, torch.float32, rule, tokens=5)
    out, log_sum = native_decode(library, decode.query, decode.store, decode.plan().runs, decode.rule)
    assert (out - decode.reference()).abs().max() < 5e-6
    plain = choose_products(torch.float32, torch.device("cpu"), 3)
    by_torch, its_log_sum = partial_decode(decode.query, decode.store, decode.plan(), rule, plain)
    assert torch.allclose(log_sum, its_log_sum, atol=1e-5) and torch.allclose(out, by_torch, atol=1e-5)


def test_results_do_not_depend_on_the_number_of_threads(library: NativeLibrary) -> None:
    decode = Decode(6, CacheShape(2, 128, 2, 128), 4, torch.bfloat16, AttentionRule(0.1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(native_decode(library, decode.query, decode.store, decode.plan().runs, decode.rule)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
