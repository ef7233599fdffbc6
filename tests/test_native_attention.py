"""The native kernel gives what the definition gives, whatever the shape, and never reads past a sequence's end."""

from pathlib import Path

import pytest
import torch

from attention_world import CPU, RULES, Heads, World
from other_processors import NEEDS, OWN_THREADS, built_for_others
from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.backend import choose_decode, choose_products
from windlass.kernels.decode_attention import finish_decode, partial_decode
from windlass.kernels.decode_plan import DecodePlan, DecodeSizes
from windlass.kernels.decode_runs import RUN_TOKENS
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.decode import native_decode
from windlass.kernels.native.library import NativeLibrary, build, native_library
from windlass.kernels.reference_attention import reference_attention
from windlass.kernels.token_span import TokenSpan

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LENGTHS = (1, 5, 63, 64, 65, 200)


@pytest.fixture(scope="module")
def library() -> NativeLibrary:
    """The one of this machine, or the reason why its tests are skipped."""
    found = native_library()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


class Decode:
    """Sequences of which each asks with its last token; the slots behind their ends are NaN."""

    def __init__(
        self, lengths: tuple[int, ...], heads: Heads, dtype: torch.dtype, rule: AttentionRule, page_tokens: int = 64
    ) -> None:
        self.world, self.rule = World(lengths, heads, page_tokens, dtype), rule
        every, starts = self.world.sequences, [sum(lengths[:at]) for at in range(len(lengths))]
        whole = [TokenSpan(row, n, 0, s.pages) for row, n, s in zip(starts, lengths, every, strict=True)]
        key, value = (torch.cat([getattr(s, part) for s in every], dim=1) for part in ("key", "value"))
        self.world.store.write(AttentionBatch(whole, page_tokens, "cpu"), key, value)
        self.query = torch.stack([s.query[:, -1] for s in every])
        self.spans = [TokenSpan(i, 1, n - 1, s.pages) for i, (n, s) in enumerate(zip(lengths, every, strict=True))]
        self.poison()

    def plan(self, held: range | None = None) -> DecodePlan:
        batch = AttentionBatch(self.spans, self.world.page_tokens, "cpu", held)
        return batch.decode_plan(self.rule, DecodeSizes(8, 8, self.query.shape[1]))

    def poison(self, value: float = torch.nan) -> None:
        for span in self.spans:
            used = span.total - (len(span.pages) - 1) * self.world.page_tokens
            self.world.store.keys[span.pages[-1], :, used:] = value
            self.world.store.values[span.pages[-1], :, used:] = value

    def native(self, library: NativeLibrary) -> tuple[torch.Tensor, torch.Tensor]:
        return native_decode(library, self.query, self.world.store, self.plan().runs, self.rule)

    def by_torch(self) -> torch.Tensor:
        """What torch makes of it in the same precision; it multiplies what lies behind an end by 0."""
        self.poison(0)
        rows = self.query.shape[1] // self.world.heads.key
        choice = choose_products(self.query.dtype, CPU, rows)
        out, _ = partial_decode(self.query, self.world.store, self.plan(), self.rule, choice)
        self.poison()
        return out

    def reference(self, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """(S, H, Dv), float64."""
        return torch.cat([
            reference_attention(q[:, None], s.key, s.value, s.key.shape[1] - 1, self.rule, sinks)
            for q, s in zip(self.query, self.world.sequences, strict=True)
        ])  # fmt: skip


def rms(difference: torch.Tensor) -> float:
    return difference.square().mean().sqrt().item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 192, 256])
def test_it_errs_at_most_twice_as_torch_does(library: NativeLibrary, dtype: torch.dtype, dim: int) -> None:
    for group in (1, 3, 4, 8, 16):
        decode = Decode(LENGTHS, Heads(2 * group, 2, dim, dim), dtype, AttentionRule(dim**-0.5))
        decode.query.mul_(3)
        wanted = decode.reference()
        out, _ = decode.native(library)
        assert rms(out - wanted) <= 2 * rms(decode.by_torch() - wanted), group


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("sinks", [None, torch.linspace(-2, 3, 6)], ids=["no sinks", "sinks"])
def test_every_rule_equals_the_reference(
    library: NativeLibrary, dtype: torch.dtype, rule: AttentionRule, sinks: torch.Tensor | None
) -> None:
    decode = Decode(LENGTHS, Heads(6, 2, 16, 16), dtype, rule, page_tokens=8)
    out = finish_decode(decode.native(library), sinks)
    assert (out - decode.reference(sinks)).abs().max() < 2e-6


@pytest.mark.parametrize("heads", [Heads(6, 2, 24, 16), Heads(5, 5, 8, 20), Heads(71, 1, 64, 64), Heads(14, 2, 40, 33)])
def test_any_sizes_of_keys_and_values_will_do(library: NativeLibrary, heads: Heads) -> None:
    for dtype in DTYPES:
        decode = Decode(LENGTHS, heads, dtype, AttentionRule(heads.key_dim**-0.5, softcap=5.0), page_tokens=100)
        out, _ = decode.native(library)
        assert (out - decode.reference()).abs().max() < 2e-6


def test_runs_of_a_long_sequence_come_together(library: NativeLibrary) -> None:
    decode = Decode((3 * RUN_TOKENS + 7, 2, RUN_TOKENS), Heads(6, 2, 32, 32), torch.float32, AttentionRule(0.2))
    assert decode.plan().runs.owner.tolist() == [0, 0, 0, 0, 1, 2]
    out, log_sum = decode.native(library)
    assert (out - decode.reference()).abs().max() < 2e-6
    for q, s, ours in zip(decode.query, decode.world.sequences, log_sum, strict=True):
        scores = (q.view(2, 3, -1).double() @ s.key.double().transpose(1, 2)) * 0.2
        assert (scores.logsumexp(-1).flatten() - ours).abs().max() < 2e-6


def test_a_sequence_without_a_page_here_gives_zero_and_no_weight(library: NativeLibrary) -> None:
    decode = Decode((20, 70, 20), Heads(), torch.float32, AttentionRule(0.25), page_tokens=16)
    only = decode.spans[1].pages[0]
    plan = decode.plan(held=range(only, only + 1))
    store = decode.world.store
    store.keys, store.values, store.num_pages = store.keys[only:][:1], store.values[only:][:1], 1
    out, log_sum = native_decode(library, decode.query, store, plan.runs, decode.rule)
    assert not out[[0, 2]].any() and (log_sum[[0, 2]] == -torch.inf).all()
    key, value = (part[:, :16] for part in (decode.world.sequences[1].key, decode.world.sequences[1].value))
    wanted = reference_attention(decode.query[1][:, None], key, value, 69, decode.rule)
    assert (out[1] - wanted[0]).abs().max() < 2e-6


def test_scores_far_apart_neither_overflow_nor_vanish(library: NativeLibrary) -> None:
    decode = Decode((300, 40), Heads(6, 2, 64, 64), torch.float32, AttentionRule(1.0))
    decode.query.mul_(40)  # scores of some thousands
    out, _ = decode.native(library)
    assert (out - decode.reference()).abs().max() < 2e-3  # a score of 1000 is known to 6e-5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_number_of_threads_changes_no_bit(library: NativeLibrary, dtype: torch.dtype) -> None:
    decode = Decode((2000, 3, 700), Heads(6, 2, 64, 64), dtype, AttentionRule(0.125))
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(decode.native(library))
    for out, log_sum in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(log_sum, results[0][1])


def test_a_page_that_is_not_there_is_not_read(library: NativeLibrary) -> None:
    decode = Decode((20,), Heads(), torch.float32, AttentionRule(0.25), page_tokens=16)
    decode.spans = [TokenSpan(0, 1, 19, [0, decode.world.store.num_pages])]
    with pytest.raises(AssertionError):
        decode.native(library)


def test_the_choice_says_which_instructions_and_whose_threads(library: NativeLibrary) -> None:
    choice = choose_decode(torch.float32, CPU, 3)
    assert choice.name == "native"
    assert "threads" in choice.reason and "compiled by" in choice.reason


# --- other processors, other threads ------------------------------------------------------------------------------


@pytest.fixture(params=[*NEEDS, OWN_THREADS])
def other_library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NativeLibrary:
    """What a processor with fewer instructions would use, and one without torch's OpenMP."""
    return built_for_others(request.param, build, tmp_path, monkeypatch)


@pytest.mark.slow
def test_other_processors_and_threads_give_the_same(other_library: NativeLibrary) -> None:
    for dtype in other_library.dtypes:
        for heads in (Heads(6, 2, 64, 64), Heads(5, 5, 24, 20), Heads(16, 2, 80, 80)):
            decode = Decode((1, 70, 700), heads, dtype, AttentionRule(0.125, softcap=9.0))
            out, _ = decode.native(other_library)
            assert (out - decode.reference()).abs().max() < 2e-6
