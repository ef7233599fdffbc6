"""Drawing tokens: the exact distribution, each row for itself, and the filters of vLLM against a full sort."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import LogitsProcessor, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from windlass.engine.sampler import SamplerRow, candidate_weights, sample, uniform_draw
from windlass.errors import ModelError
from windlass.facts.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0.0)
FILTERS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 2, 7, 50, 5000]),
        "top_p": st.sampled_from([0.001, 0.3, 0.5, 0.9, 0.999, 1.0]),
        "min_p": st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    }
)


def logits_of(seed: int, vocabulary: int, scale: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(vocabulary, generator=generator) * scale).to(dtype)


def kept_by_full_sort(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The definition: sort everything, lower id first among equals, and cut. Returns the ids kept, ascending."""
    raw = logits.to(torch.float32).numpy()
    weights = torch.from_numpy(np.exp((raw - raw.max()) * np.float32(1 / params.temperature))).to(torch.float64)
    weights, ids = weights.sort(descending=True, stable=True)
    keep = weights >= np.float32(params.min_p)
    if params.top_k:
        keep &= weights >= weights[keep][: params.top_k][-1]
    weights = weights * keep
    if params.top_p < 1:
        keep &= weights.cumsum(0) - weights < params.top_p * weights.sum()
    return ids[keep & (weights > 0)].sort().values


def draws(logits: torch.Tensor, params: SamplingParams, count: int) -> np.ndarray:
    rows = [SamplerRow(params, seed=11, step=step) for step in range(count)]
    return np.array([token.token_id for token in sample(logits.expand(count, -1), rows)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_greedy_takes_what_torch_argmax_takes(dtype: torch.dtype) -> None:
    logits = torch.stack([logits_of(seed, 1000, 2.0, dtype) for seed in range(16)])
    tokens = sample(logits, [SamplerRow(GREEDY, 0)] * 16)
    assert [token.token_id for token in tokens] == logits.argmax(-1).tolist()


def test_greedy_takes_the_first_of_equals_alone_and_beside_sampled_rows() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0]]).expand(2, -1)
    assert sample(logits, [SamplerRow(GREEDY, 0)] * 2)[0].token_id == 1
    assert sample(logits, [SamplerRow(GREEDY, 0), SamplerRow(SamplingParams(), 0)])[0].token_id == 1


@given(
    filters=FILTERS,
    seed=st.integers(0, 9),
    vocabulary=st.sampled_from([3, 64, 1000, 20_000]),
    scale=st.sampled_from([0.05, 1.0, 4.0, 20.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_filters_keep_exactly_what_a_full_sort_keeps(
    filters: dict[str, Any], seed: int, vocabulary: int, scale: float, dtype: torch.dtype
) -> None:
    params = SamplingParams(**filters)
    logits = logits_of(seed, vocabulary, scale, dtype)
    weights = candidate_weights(logits.to(torch.float32).numpy(), params)
    assert np.flatnonzero(weights).tolist() == kept_by_full_sort(logits, params).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("params", "warper"),
    [
        (SamplingParams(top_k=30), TopKLogitsWarper(30)),
        (SamplingParams(top_p=0.85), TopPLogitsWarper(0.85)),
        (SamplingParams(min_p=0.02), MinPLogitsWarper(0.02)),
    ],
    ids=["top_k", "top_p", "min_p"],
)
def test_each_filter_keeps_what_that_of_transformers_keeps(
    seed: int, params: SamplingParams, warper: LogitsProcessor
) -> None:
    logits = logits_of(seed, 2_000, 2.5)
    theirs = warper(torch.empty(1, 0, dtype=torch.long), logits[None])[0].isfinite()
    assert np.flatnonzero(candidate_weights(logits.numpy(), params)).tolist() == theirs.nonzero()[:, 0].tolist()


def test_equal_logits_at_the_edge_of_top_k_all_stay_and_of_top_p_the_first() -> None:
    logits = np.array([1.0, 2.0, 2.0, 2.0, 2.0], dtype=np.float32)
    assert np.flatnonzero(candidate_weights(logits, SamplingParams(top_k=2))).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(candidate_weights(logits, SamplingParams(top_p=0.4))).tolist() == [1, 2]


@pytest.mark.parametrize(
    "filters",
    [{}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 2.0, "top_p": 0.5}],
    ids=str,
)
def test_draws_follow_the_exact_distribution(filters: dict[str, float]) -> None:
    params = SamplingParams(**filters)
    logits = logits_of(1, 40, 1.5)
    kept = kept_by_full_sort(logits, params)
    expected = (logits[kept].to(torch.float64) / params.temperature).softmax(0).numpy()
    counts = np.bincount(draws(logits, params, 20_000), minlength=40)
    assert counts.sum() == counts[kept].sum()
    assert chisquare(counts[kept], expected * 20_000).pvalue > 1e-3


def test_draws_follow_the_distribution_across_a_large_vocabulary() -> None:
    logits = logits_of(2, 20_000, 0.5)
    parts = np.add.reduceat(logits.to(torch.float64).softmax(0).numpy(), np.arange(0, 20_000, 999))
    counts = np.bincount(draws(logits, SamplingParams(), 3_000) // 999, minlength=len(parts))
    assert chisquare(counts, parts / parts.sum() * 3_000).pvalue > 1e-3


def test_uniform_draws_are_uniform_in_each_of_their_three_numbers() -> None:
    for numbers in (lambda i: (i, 0, 0), lambda i: (7, i, 0), lambda i: (7, 0, i), lambda i: (-i, i % 5, i // 5)):
        values = np.array([uniform_draw(*numbers(i)) for i in range(5_000)])
        assert ((values >= 0) & (values < 1)).all()
        assert chisquare(np.bincount((values * 50).astype(int), minlength=50)).pvalue > 1e-3


def test_uniform_draws_are_the_same_on_every_machine() -> None:
    assert uniform_draw(0, 0, 0) == 0.011546754286331562
    assert uniform_draw(1, 2, 3) == 0.6527702009682942
    assert uniform_draw(-1, 0, 2**40) == 0.20353554039193045


@given(data=st.data(), count=st.integers(1, 8))
def test_a_row_draws_the_same_whatever_else_is_in_the_block(data: st.DataObject, count: int) -> None:
    rows, logits = [], []
    for place in range(count):
        params = SamplingParams(**data.draw(FILTERS), logprobs=data.draw(st.sampled_from([None, 2])))
        rows.append(
            SamplerRow(data.draw(st.sampled_from([params, GREEDY])), seed=place, step=data.draw(st.integers(0, 9)))
        )
        logits.append(logits_of(place, 700, 3.0))
    block = torch.stack(logits)
    together = sample(block, rows)
    assert together == [sample(block[i : i + 1], rows[i : i + 1])[0] for i in range(count)]
    assert together[::-1] == sample(block.flip(0), rows[::-1])


def test_answers_steps_and_seeds_draw_differently() -> None:
    logits = torch.zeros(1, 100_000)
    rows = [SamplerRow(SamplingParams(), seed, n, step) for seed in (1, 2) for n in (0, 1) for step in (0, 1)]
    assert len({sample(logits, [row])[0].token_id for row in rows}) == 8


@pytest.mark.parametrize(
    "params", [GREEDY, SamplingParams(), SamplingParams(top_p=0.5)], ids=["greedy", "all", "top_p"]
)
def test_banned_ids_never_come_and_the_logits_are_left_alone(params: SamplingParams) -> None:
    logits = torch.tensor([[9.0, 8.0, 1.0, 0.9, -30.0]])
    before = logits.clone()
    tokens = {sample(logits, [SamplerRow(params, 3, step=s, banned=(0, 1, 99))])[0].token_id for s in range(50)}
    assert tokens <= {2, 3}
    assert torch.equal(logits, before)


def test_logprobs_are_log_softmax_of_the_raw_logits_with_ranks() -> None:
    logits = torch.stack([logits_of(seed, 500, 2.0) for seed in range(6)])
    reference = logits.to(torch.float64).log_softmax(-1)
    params = SamplingParams(temperature=3.0, top_k=100, logprobs=4)
    for row, token in enumerate(sample(logits, [SamplerRow(params, seed, banned=(0,)) for seed in range(6)])):
        assert token.top_logprobs is not None
        assert token.logprob == pytest.approx(float(reference[row, token.token_id]), abs=1e-5)
        best = reference[row].topk(4)
        for rank, (value, token_id) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), 1):
            assert token.top_logprobs[token_id].rank == rank
            assert token.top_logprobs[token_id].logprob == pytest.approx(value, abs=1e-5)
        own = token.top_logprobs[token.token_id]
        assert own.rank == 1 + int((logits[row] > logits[row, token.token_id]).sum())
        assert len(token.top_logprobs) == 4 + (own.rank > 4)


def test_logprobs_zero_reports_the_token_alone_and_none_reports_nothing() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0]])
    alone = sample(logits, [SamplerRow(SamplingParams(temperature=0, logprobs=0), 0)])[0]
    assert alone.top_logprobs is not None
    assert {i: entry.rank for i, entry in alone.top_logprobs.items()} == {1: 1}
    nothing = sample(logits, [SamplerRow(SamplingParams(temperature=0), 0)])[0]
    assert (nothing.logprob, nothing.top_logprobs) == (None, None)


def test_equal_logits_are_ranked_by_id_wherever_the_rank_is_taken() -> None:
    logits = torch.tensor([[2.0, 1.0, 2.0, 2.0]])
    forced = SamplerRow(SamplingParams(temperature=0, logprobs=1), 0, banned=(0, 2))
    token = sample(logits, [forced])[0]
    assert token.top_logprobs is not None
    assert {i: entry.rank for i, entry in token.top_logprobs.items()} == {0: 1, 3: 3}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("params", [GREEDY, SamplingParams()], ids=["greedy", "sampled"])
def test_logits_that_are_not_finite_are_refused_with_the_row(bad: float, params: SamplingParams) -> None:
    logits = torch.zeros(3, 10)
    logits[2, 4] = bad
    with pytest.raises(ModelError, match=f"row 2 is {bad}.*--dtype float32"):
        sample(logits, [SamplerRow(params, 0)] * 3)


def test_masked_logits_have_no_chance_at_any_temperature() -> None:
    lowest = torch.finfo(torch.float32).min
    logits = torch.tensor([[lowest, 0.0, float("-inf"), 0.0]])
    params = SamplingParams(temperature=0.01, top_p=0.99)
    assert {sample(logits, [SamplerRow(params, 5, step=s)])[0].token_id for s in range(40)} == {1, 3}
