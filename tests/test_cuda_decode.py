"""The kernel of a device that attends over pages gives what the definition of attention gives.

It runs in Triton's interpreter here; `make test-gpu` runs the same tests on a device. Slots that are not read hold NaN.
"""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from attention_world import RULES, Heads
from interpreted_triton import DEVICES, bfloat16_as_devices_do
from windlass.facts.attention_rule import AttentionRule
from windlass.kernels import decode_attention as decode_attention_file
from windlass.kernels import decode_runs as decode_runs_file
from windlass.kernels.attention import decode_sizes
from windlass.kernels.backend import ProductChoice
from windlass.kernels.cuda import decode as decode_file
from windlass.kernels.cuda.backend import DeviceKernels, load_kernels
from windlass.kernels.cuda.decode import decode_by, takes
from windlass.kernels.cuda.guard import Guard
from windlass.kernels.decode_attention import decode_attention, partial_decode
from windlass.kernels.decode_plan import DecodePlan, plan_reads
from windlass.kernels.page_read import PageRead
from windlass.kernels.page_store import PageStore
from windlass.kernels.reference_attention import reference_attention

__all__ = ["bfloat16_as_devices_do"]

RULE = AttentionRule(0.25)
READS = (
    PageRead(0, 1, 0, 11), PageRead(2, 0, 0, 16), PageRead(3, 2, 5, 16), PageRead(4, 0, 0, 16), PageRead(5, 2, 0, 16),
    PageRead(6, 2, 0, 16), PageRead(7, 2, 0, 1),
)  # fmt: skip
"""Sequence 0 reads whole pages, 1 less than one, 2 from within a page to the first token of another."""
PAGES, PAGE_TOKENS, SEQUENCES = 9, 16, 3


def poisoned_store(heads: Heads, dtype: torch.dtype, device: str, page_tokens: int = PAGE_TOKENS) -> PageStore:
    store = PageStore(PAGES, page_tokens, heads.key, heads.key_dim, heads.key, heads.value_dim, dtype, device)
    seen = torch.zeros(PAGES, 1, page_tokens, 1, dtype=torch.bool, device=device)
    for read in READS:
        seen[read.page, :, read.start : read.stop] = True
    store.keys.copy_(torch.randn(store.keys.shape)).masked_fill_(~seen, torch.nan)
    store.values.copy_(torch.randn(store.values.shape)).masked_fill_(~seen, torch.nan)
    return store


def finite(store: PageStore) -> PageStore:
    """The same where it is read: torch multiplies the rest by zero."""
    store.keys.nan_to_num_()
    store.values.nan_to_num_()
    return store


def planned(store: PageStore, heads: Heads, reads: tuple[PageRead, ...] = READS) -> DecodePlan:
    sizes = decode_sizes(heads.query, store)
    return plan_reads(reads, SEQUENCES, store.page_tokens, sizes, store.keys.device)


def reference(
    query: torch.Tensor, store: PageStore, softcap: float | None = None, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """(S, H, Dv) in `dtype`, of all reads."""
    rows = []
    for owner in range(SEQUENCES):
        reads = [read for read in READS if read.owner == owner]
        key, value = (
            torch.cat([stored[read.page, :, read.start : read.stop] for read in reads], dim=1)
            for stored in (store.keys, store.values)
        )
        rule = replace(RULE, softcap=softcap)
        rows.append(reference_attention(query[owner][:, None], key, value, 10**6, rule, dtype=dtype)[0])
    return torch.stack(rows)


def attended(
    query: torch.Tensor, store: PageStore, heads: Heads, rule: AttentionRule = RULE
) -> tuple[torch.Tensor, torch.Tensor]:
    return decode_by(load_kernels(), query, store, planned(store, heads), rule)


@DEVICES
@pytest.mark.parametrize(
    "heads",
    [Heads(4, 4), Heads(8, 1), Heads(6, 2, 24, 16), Heads(4, 2, 8, 20), Heads(5, 5, 80, 80), Heads(40, 2, 16, 16)],
    ids=["every head its own", "one key head", "keys wider", "values wider", "size 80", "twenty to a key"],
)
def test_every_shape_of_heads_equals_the_reference(heads: Heads, device: str) -> None:
    store = poisoned_store(heads, torch.float32, device)
    query = torch.randn(SEQUENCES, heads.query, heads.key_dim, device=device)
    out, _ = attended(query, store, heads)
    assert (out - reference(query, store)).abs().max() < 2e-6


@DEVICES
@pytest.mark.parametrize("run_tokens", [1, 20, 512])
@pytest.mark.parametrize("softcap", [None, 2.0, 50.0])
def test_runs_of_any_length_add_up_and_scores_are_capped(
    run_tokens: int, softcap: float | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_runs_file, "RUN_TOKENS", run_tokens)
    heads = Heads()
    store = poisoned_store(heads, torch.float32, device)
    query = 3 * torch.randn(SEQUENCES, heads.query, heads.key_dim, device=device)
    out, log_sum = attended(query, store, heads, replace(RULE, softcap=softcap))
    assert (out - reference(query, store, softcap)).abs().max() < 4e-6
    choice = ProductChoice("exact", "for the test")
    expected = partial_decode(query, finite(store), planned(store, heads), replace(RULE, softcap=softcap), choice)
    assert torch.allclose(log_sum, expected[1], atol=1e-5)


@DEVICES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_16_bits_it_is_as_exact_as_torch(dtype: torch.dtype, device: str) -> None:
    heads = Heads(6, 2, 64, 64)
    store = poisoned_store(heads, dtype, device)
    query = torch.randn(SEQUENCES, 6, 64, device=device).to(dtype)
    out, _ = attended(query, store, heads)
    exact = reference(query, store)
    assert (out - exact).norm() <= 2 * (reference(query, store, dtype=dtype) - exact).norm()


@DEVICES
def test_a_sequence_that_reads_nothing_has_no_share(device: str) -> None:
    heads = Heads()
    store = poisoned_store(heads, torch.float32, device)
    query = torch.randn(SEQUENCES, heads.query, heads.key_dim, device=device)
    some = tuple(read for read in READS if read.owner != 1)
    out, log_sum = decode_by(load_kernels(), query, store, planned(store, heads, some), RULE)
    assert torch.equal(out[1], torch.zeros_like(out[1])) and bool((log_sum[1] == -torch.inf).all())
    assert (out[::2] - reference(query, store)[::2]).abs().max() < 2e-6


def test_layers_that_no_program_holds_are_left_to_torch() -> None:
    def store(heads: Heads, dtype: torch.dtype = torch.float32) -> PageStore:
        return PageStore(1, 64, heads.key, heads.key_dim, heads.key, heads.value_dim, dtype, "cpu")

    query = torch.empty(1, 16, 256)
    assert takes(query, store(Heads(16, 16, 256, 256))) and takes(query, store(Heads(16, 1, 256, 128)))
    assert not takes(query, store(Heads(16, 1, 576, 512)))
    assert not takes(query, store(Heads(16, 1, 256, 512)))
    assert not takes(query, store(Heads(16, 16, 256, 256), torch.bfloat16))
    assert not takes(torch.empty(1, 256, 64), store(Heads(256, 1, 64, 64)))


# --- the way to it --------------------------------------------------------------------------------------------------


@pytest.fixture
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor passes for a device that has kernels."""
    monkeypatch.setattr(decode_attention_file, "choose_decode", lambda *given: ProductChoice("device", "for the test"))
    monkeypatch.setattr(decode_file, "device_kernels", load_kernels)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_decode_attention_takes_the_kernel_where_there_is_one(
    rule: AttentionRule, on_a_device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, sinks = Heads(), torch.linspace(-2, 3, 6)
    store = finite(poisoned_store(heads, torch.float32, "cpu"))
    plan = planned(store, heads)
    query = torch.randn(SEQUENCES, heads.query, heads.key_dim)
    by_torch = decode_attention(query, store, plan, rule, sinks, ProductChoice("exact", "for the test"))
    monkeypatch.setattr(decode_attention_file, "score_products", None)  # torch's way would not get far
    assert (decode_attention(query, store, plan, rule, sinks) - by_torch).abs().max() < 4e-6


def test_a_kernel_that_does_not_run_is_replaced_and_that_is_said_once(
    on_a_device: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken_pages(*given: object) -> None:
        raise RuntimeError("out of shared memory")

    broken = DeviceKernels(SimpleNamespace(decode_pages=broken_pages), Guard((RuntimeError,)), "3", "a stand-in")
    monkeypatch.setattr(decode_file, "device_kernels", lambda: broken)
    heads = Heads()
    store = finite(poisoned_store(heads, torch.float32, "cpu"))
    query = torch.randn(SEQUENCES, heads.query, heads.key_dim)
    for _ in range(2):
        out = decode_attention(query, store, planned(store, heads), RULE)
        assert (out - reference(query, store)).abs().max() < 4e-6
    assert [record.getMessage() for record in caplog.records] == [
        "decode attention in torch.float32 goes by plain torch, since its kernel does not run here: "
        "out of shared memory"
    ]
