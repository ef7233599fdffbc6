"""Attention over the paged store equals the plain definition and transformers' eager attention, whatever the shape.

Every slot that no sequence owns holds NaN in every test, so reading past an end shows.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama import modeling_llama

from attention_world import CPU, FLOAT32_LIMIT, RULES, Heads, World
from windlass.facts.attention_rule import AttentionRule
from windlass.kernels import decode_attention as decode_attention_file
from windlass.kernels import span_attention as span_attention_file
from windlass.kernels.attention import paged_attention
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.backend import ProductChoice, choose_products
from windlass.kernels.decode_attention import decode_attention
from windlass.kernels.decode_plan import DecodeSizes, plan_decode
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.library import native_library
from windlass.kernels.partial_results import combine
from windlass.kernels.reference_attention import reference_attention
from windlass.kernels.span_attention import finish, partial_attention, span_attention
from windlass.kernels.token_span import TokenSpan


@pytest.fixture(autouse=True, scope="module", params=["native", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything holds with the native kernel and without."""
    found = native_library()
    if request.param == "native" and isinstance(found, Missing):
        pytest.skip(found.reason)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(decode_attention_file, "choose_decode", choose_products)
        yield


# --- the paged store --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("sinks", [None, torch.linspace(-2, 3, 6)], ids=["no sinks", "sinks"])
@pytest.mark.parametrize("scattered", [True, False], ids=["scattered", "in order"])
def test_prefill_pieces_and_decode_equal_the_reference(
    rule: AttentionRule, sinks: torch.Tensor | None, scattered: bool
) -> None:
    world = World([30, 30, 30, 30], scattered=scattered)
    for new in ([7, 1, 9, 9], [1, 1, 1, 1], [1, 5, 1, 1], [11, 0, 3, 3], [1, 1, 1, 1]):
        assert world.worst(new, rule, sinks) < FLOAT32_LIMIT


@pytest.mark.parametrize(
    "heads",
    [Heads(4, 4), Heads(8, 1), Heads(24, 8, 128, 128), Heads(6, 2, 24, 16), Heads(4, 2, 8, 20), Heads(5, 5, 80, 80)],
    ids=["every head its own", "one key head", "large", "keys wider", "values wider", "size 80"],
)
def test_every_shape_of_heads_equals_the_reference(heads: Heads) -> None:
    world = World([40, 3, 70], heads, page_tokens=16)
    rule = AttentionRule(heads.key_dim**-0.5)
    for new in ([33, 1, 64], [1, 1, 1], [1, 1, 1], [5, 0, 4]):
        assert world.worst(new, rule) < FLOAT32_LIMIT


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=7), data=st.data())
def test_ragged_groups_equal_the_reference(lengths: list[int], data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from(list(RULES.values())))
    world = World([length + 2 for length in lengths], page_tokens=data.draw(st.sampled_from([1, 3, 8])))
    assert world.worst(lengths, rule) < FLOAT32_LIMIT
    assert world.worst([1] * len(lengths), rule) < FLOAT32_LIMIT
    assert world.worst([data.draw(st.integers(0, 1)) for _ in lengths[1:]] + [1], rule) < FLOAT32_LIMIT


def test_a_long_context_equals_the_reference() -> None:
    world = World([5000, 3000], Heads(2, 1, 16, 16), page_tokens=64)
    rule = AttentionRule(0.25)
    world.step([4900, 2999], rule)
    assert world.worst([1, 1], rule) < FLOAT32_LIMIT
    assert world.worst([99, 0], rule) < FLOAT32_LIMIT


def test_spans_may_be_given_in_any_order() -> None:
    world = World([20, 20, 20])
    world.step([9, 4, 6], AttentionRule(0.25))
    forward = AttentionBatch(world.spans, 4, "cpu")
    backward = AttentionBatch(world.spans[::-1], 4, "cpu")
    query = torch.randn(6, 19, 16)
    rule = AttentionRule(0.25)
    first = paged_attention(query, world.store, forward, rule)
    assert torch.equal(first, paged_attention(query, world.store, backward, rule))


def test_a_window_reads_no_page_before_it() -> None:
    world = World([64])
    rule = AttentionRule(0.25, window=8)
    world.step([60], rule)
    world.store.keys[world.sequences[0].pages[:12]] = torch.nan
    world.store.values[world.sequences[0].pages[:12]] = torch.nan
    assert world.worst([1], rule) < FLOAT32_LIMIT  # position 60 sees 53 .. 60: pages 13 to 15
    assert world.worst([3], rule) < FLOAT32_LIMIT


def test_a_page_read_by_two_sequences_serves_both() -> None:
    world = World([12, 12])
    world.step([8, 8], AttentionRule(0.25))
    shared = world.sequences[0].pages
    spans = [TokenSpan(0, 1, 7, shared), TokenSpan(1, 1, 6, shared)]
    query = torch.randn(6, 2, 16)
    out = paged_attention(query, world.store, AttentionBatch(spans, 4, "cpu"), AttentionRule(0.25))
    key, value = world.sequences[0].key, world.sequences[0].value
    for row, total in ((0, 8), (1, 7)):
        wanted = reference_attention(
            query[:, row : row + 1], key[:, :total], value[:, :total], total - 1, AttentionRule(0.25)
        )
        assert (out[row] - wanted[0]).abs().max() < FLOAT32_LIMIT


@pytest.mark.parametrize("sizes", [DecodeSizes(1, 1, 6), DecodeSizes(2, 3, 6), DecodeSizes(100, 1, 6)])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_blocks_and_waves_of_any_size_give_the_same_result(sizes: DecodeSizes, rule: AttentionRule) -> None:
    world = World([30, 5, 61], scattered=False)
    world.step([28, 3, 60], rule)
    query = torch.randn(6, 3, 16)
    spans = [TokenSpan(row, 1, s.stored - 1, s.pages) for row, s in enumerate(world.sequences)]
    plan = plan_decode(spans, rule, 4, sizes, CPU)
    out = decode_attention(query.transpose(0, 1), world.store, plan, rule)
    for row, s in enumerate(world.sequences):
        wanted = reference_attention(
            query[:, row : row + 1], s.key[:, : s.stored], s.value[:, : s.stored], s.stored - 1, rule
        )
        assert (out[row] - wanted[0]).abs().max() < FLOAT32_LIMIT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_input_gives_the_same_bits(dtype: torch.dtype) -> None:
    world = World([300, 40, 77], Heads(24, 8, 64, 64), 16, dtype)
    rule = AttentionRule(0.125)
    world.step([299, 39, 76], rule)
    world.step([1, 1, 1], rule)
    query = torch.randn(24, 3, 64).to(dtype)
    batch = AttentionBatch(world.spans, 16, "cpu")
    first = paged_attention(query, world.store, batch, rule)
    for _ in range(3):
        assert torch.equal(first, paged_attention(query, world.store, batch, rule))


# --- against transformers -----------------------------------------------------------------------------------------


def eager(
    file: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, **options: Any
) -> torch.Tensor:
    """transformers' eager attention of one layer: (H, n, Dk), (Hk, m, D) -> (n, H, Dv)."""
    module = SimpleNamespace(num_key_value_groups=query.shape[0] // key.shape[0], training=False, **options)
    extra = {"softcap": options["softcap"]} if "softcap" in options else {}
    out, _ = file.eager_attention_forward(module, query[None], key[None], value[None], mask, scaling=0.25, **extra)
    return out[0]


def causal_mask(queries: int, keys: int, dtype: torch.dtype, window: int | None = None) -> torch.Tensor:
    """(1, 1, n, m) as transformers' eager path adds it; the last query stands at the last key."""
    q, k = torch.arange(keys - queries, keys)[:, None], torch.arange(keys)[None]
    hidden = (k > q) if window is None else (k > q) | (q - k >= window)
    return torch.zeros(queries, keys, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)[None, None]


@pytest.mark.parametrize("new", [1, 8, 50], ids=["decode", "a piece", "prefill"])
def test_float32_equals_transformers_eager_attention(new: int) -> None:
    sinks = torch.linspace(-2, 3, 6)
    families = {
        "llama": (modeling_llama, AttentionRule(0.25), None, {}),
        "gemma2": (modeling_gemma2, AttentionRule(0.25, softcap=2.0), None, {"softcap": 2.0}),
        "gpt_oss": (modeling_gpt_oss, AttentionRule(0.25, window=12), sinks, {"sinks": sinks}),
    }
    for name, (file, rule, ours_sinks, options) in families.items():
        world = World([50, 50])
        if new < 50:
            world.step([50 - new] * 2, rule, ours_sinks)
        out = world.step([new] * 2, rule, ours_sinks)
        mask = causal_mask(new, 50, torch.float32, rule.window)
        wanted = [eager(file, s.query[:, -new:], s.key, s.value, mask, **options) for s in world.sequences]
        assert (out - torch.cat(wanted)).abs().max() < FLOAT32_LIMIT, name


@pytest.mark.parametrize("new", [1, 150], ids=["decode", "prefill"])
@pytest.mark.parametrize("spread", [1.0, 4.0], ids=["flat", "peaked"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [Heads(6, 2, 64, 64), Heads(4, 4, 64, 64)], ids=["grouped", "every head its own"])
def test_sixteen_bits_err_no_more_than_eager_and_little_more_than_sdpa(
    new: int, spread: float, dtype: torch.dtype, heads: Heads
) -> None:
    """The limit comes from the format: what transformers loses at the same precision against float64."""
    world = World([150] * 2, heads, 32, dtype)
    for s in world.sequences:
        s.query.mul_(spread)
    rule = AttentionRule(0.25)
    if new < 150:
        world.step([150 - new] * 2, rule)
    ours = world.step([new] * 2, rule)
    wanted, mask = world.reference(), causal_mask(new, 150, dtype)
    by_eager = torch.cat([eager(modeling_llama, s.query[:, -new:], s.key, s.value, mask) for s in world.sequences])
    by_sdpa = torch.cat([
        functional.scaled_dot_product_attention(
            s.query[None, :, -new:], s.key[None], s.value[None], mask, scale=0.25, enable_gqa=True
        )[0].transpose(0, 1)
        for s in world.sequences
    ])  # fmt: skip
    error, eager_error, sdpa_error = ((x - wanted).square().mean().sqrt().item() for x in (ours, by_eager, by_sdpa))
    assert error <= eager_error
    assert error <= 1.6 * sdpa_error


@pytest.mark.parametrize("name", ["paired", "widened"])
def test_both_ways_of_multiplying_sixteen_bits_agree_with_the_reference(name: str) -> None:
    world = World([100, 60], Heads(12, 4, 64, 64), 16, torch.bfloat16)
    rule = AttentionRule(0.125)
    world.step([99, 59], rule)
    world.step([1, 1], rule)
    query = torch.stack([s.query[:, s.stored - 1] for s in world.sequences])
    plan = plan_decode(world.spans, rule, 16, DecodeSizes(4, 2, 12), CPU)
    out = decode_attention(query, world.store, plan, rule, choice=ProductChoice(name, "asked for by a test"))
    assert (out - world.reference()).abs().max() < 2 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("rows", [1, 3, 192])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_choice_of_products_says_why(dtype: torch.dtype, rows: int) -> None:
    choice = choose_products(dtype, CPU, rows)
    assert choice.name in ("paired", "widened")
    assert len(choice.reason.split()) > 5


def test_float32_is_multiplied_as_it_is() -> None:
    assert choose_products(torch.float32, CPU, 3).name == "exact"


def test_one_row_for_a_key_is_widened() -> None:
    assert choose_products(torch.bfloat16, CPU, 1).name == "widened"


# --- one dense sequence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_small_scratch_changes_nothing(rule: AttentionRule, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = torch.randn(6, 20, 16), torch.randn(2, 30, 16), torch.randn(2, 30, 8)
    wanted = reference_attention(query, key, value, 10, rule)
    for scratch, piece in ((1, 7), (12 * 100, 11), (1 << 20, 4096)):
        monkeypatch.setattr(span_attention_file, "SCRATCH_BYTES", scratch)
        monkeypatch.setattr(span_attention_file, "KEY_PIECE", piece)
        assert (span_attention(query, key, value, 10, rule) - wanted).abs().max() < FLOAT32_LIMIT


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("cuts", [[0, 30, 100], [0, 1, 95, 100], [0, 50, 60, 70, 100]])
def test_results_over_pieces_of_the_keys_combine_exactly(rule: AttentionRule, cuts: list[int]) -> None:
    query, key, value = torch.randn(6, 40, 16), torch.randn(2, 100, 16), torch.randn(2, 100, 8)
    sinks = torch.linspace(-2, 3, 6)
    pieces = [
        partial_attention(query, key[:, low:high], value[:, low:high], 60, rule, low)
        for low, high in zip(cuts, cuts[1:], strict=False)
    ]
    result = pieces[0]
    for piece in pieces[1:]:
        result = combine(result, piece)
    wanted = reference_attention(query, key, value, 60, rule, sinks)
    assert (finish(*result, sinks).transpose(0, 1) - wanted).abs().max() < FLOAT32_LIMIT


def test_a_piece_that_a_query_cannot_see_gives_zero_and_no_weight() -> None:
    query, key, value = torch.randn(4, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    out, log_sum = partial_attention(query, key, value, 0, AttentionRule(0.25), first_key_position=1)
    assert not out[:, 0].any()
    assert (log_sum[:, 0] == -torch.inf).all()
    assert out[:, 1:].isfinite().all() and log_sum[:, 1:].isfinite().all()
