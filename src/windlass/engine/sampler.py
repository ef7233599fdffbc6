"""Turns logits into tokens: greedy, or one seeded draw a row that depends on nothing but that row.

A row's draw is a counter-based random number of (seed, answer, step) put through the inverse of the row's own
cumulative distribution in token id order, so what else stands in the block changes nothing. Rows are worked
through one by one in numpy: half a megabyte at a time stays in the core's cache, and every sum has a fixed order.

Shapes: R rows, V vocabulary, H head of the distribution (its largest weights, in any number).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from windlass.engine.logit_changes import Floats, LogitChanges
from windlass.errors import ModelError
from windlass.facts.completion import Logprob
from windlass.facts.sampling_params import SamplingParams

# The few tokens above this share of the likeliest one's weight usually settle top-k and top-p; if not, all are taken.
HEAD_WEIGHT = np.float32(2.0**-10)
# Logits come to the host as float32 in slices, so that a large block needs no second copy of them all.
ROWS_AT_ONCE = 32
LEAST_INVERSE = float(np.finfo(np.float32).tiny)
# The inverse is found in two steps, block and token within it, as a float64 running sum over all of V is slow.
CDF_BLOCK = 512


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """How to draw for one row. `seed` is the request's, `sample_index` counts its n answers, `step` its new tokens.

    `banned` are ids that may not come now: end and stop ids while min_tokens is not reached, ends of bad words.
    `changes` are what the request asks to change in its logits, if anything. `allowed` (V,) are the ids with which an
    answer keeps its form, if it must have one.
    """

    params: SamplingParams
    seed: int
    sample_index: int = 0
    step: int = 0
    banned: tuple[int, ...] = ()
    changes: LogitChanges | None = None
    allowed: NDArray[np.bool_] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token is what the logits say."""
        return not self.banned and self.changes is None and self.allowed is None


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A drawn id; if logprobs were asked for, its log probability, and {id: Logprob} of the likeliest ids and itself.

    Log probabilities are log_softmax of the raw logits, before temperature, bans and filters, as in vLLM.
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: dict[int, Logprob] | None = None


def sample(logits: torch.Tensor, rows: Sequence[SamplerRow]) -> list[SampledToken | None]:
    """logits (R, V), any float dtype and device, left unchanged; a SamplerRow each -> a SampledToken each.

    None where bans leave nothing to draw: that is the matter of one row, and the others have their tokens.

    Filters come in vLLM's order: what the request changes and bans, temperature, min_p, top_k (ties of the k-th stay),
    top_p (the fewest tokens whose probability reaches it; of equal ones the lower id first). Raises ModelError where
    logits are not finite.
    """
    assert logits.shape[0] == len(rows), f"{logits.shape[0]} rows of logits for {len(rows)} sequences"
    if all(row.params.is_greedy and row.params.logprobs is None and row.is_plain for row in rows):
        return [SampledToken(token_id) for token_id in _argmax_rows(logits)]
    sampled = list[SampledToken | None]()
    for start in range(0, len(rows), ROWS_AT_ONCE):
        host = logits[start : start + ROWS_AT_ONCE].detach().to("cpu", torch.float32).numpy()
        sampled += [_sample_row(raw, rows[start + i], start + i) for i, raw in enumerate(host)]
    return sampled


def uniform_draw(seed: int, sample_index: int, step: int) -> float:
    """A number in [0, 1), the same for the same three integers on every machine.

    Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), keyed by seed and answer,
    counted by step.
    """
    key = np.array([seed % 2**64, sample_index], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=[step, 0, 0, 0]).random_raw()
    return float(int(bits) >> 11) * 2.0**-53


def _argmax_rows(logits: torch.Tensor) -> list[int]:
    best, ids = logits.max(dim=-1)  # (R,), (R,)
    for index, value in enumerate(best.tolist()):
        _check_finite(value, index)
    token_ids: list[int] = ids.tolist()
    return token_ids


def _sample_row(raw: Floats, row: SamplerRow, index: int) -> SampledToken | None:
    _check_finite(float(raw.max()), index)
    logits = raw if row.is_plain else _changed(raw, row)
    token_id = int(logits.argmax())
    if logits[token_id] == -np.inf:
        return None
    if not row.params.is_greedy:
        weights = candidate_weights(logits, row.params)
        token_id = _invert(weights, uniform_draw(row.seed, row.sample_index, row.step))
    if row.params.logprobs is None:
        return SampledToken(token_id)
    top = _top_logprobs(raw, token_id, row.params.logprobs)
    return SampledToken(token_id, top[token_id].logprob, top)


def _changed(raw: Floats, row: SamplerRow) -> Floats:
    """raw (V,), left as it is -> logits (V,) with the row's changes and bans."""
    logits = raw.copy() if row.changes is None else row.changes.applied(raw)
    logits[[token_id for token_id in row.banned if token_id < logits.size]] = -np.inf
    if row.allowed is not None:
        logits[~row.allowed] = -np.inf
    return logits


def _check_finite(best: float, index: int) -> None:
    if not np.isfinite(best):
        raise ModelError(
            f"the largest logit of row {index} is {best}, not a finite number; "
            f"the weights may be damaged or overflow in this precision: try --dtype float32 (dtype='float32' in Python)"
        )


def candidate_weights(logits: Floats, params: SamplingParams) -> Floats:
    """logits (V,) -> weights (V,): probability over that of the likeliest token, 0 where filtered out."""
    # No temperature is so high that its inverse is 0: what is banned, at -inf, would come out as nan and not as 0.
    inverse = np.float32(max(1.0 / params.temperature, LEAST_INVERSE))
    # Some models mask with the lowest float32, which a low temperature carries to -inf: weight 0 either way.
    with np.errstate(over="ignore"):
        weights: Floats = np.exp((logits - logits.max()) * inverse)
    if params.min_p > 0:
        weights *= weights >= np.float32(params.min_p)
    if 0 < params.top_k < weights.size:
        _keep_top_k(weights, params.top_k)
    if params.top_p < 1:
        _keep_top_p(weights, params.top_p)
    return weights


def _keep_top_k(weights: Floats, top_k: int) -> None:
    head = weights[weights >= HEAD_WEIGHT]  # (H,)
    if head.size < top_k:
        head = weights
    kth = np.partition(head, head.size - top_k)[head.size - top_k]
    weights *= weights >= kth


def _keep_top_p(weights: Floats, top_p: float) -> None:
    """Keeps the fewest largest weights whose sum reaches top_p of the whole. Holtzman et al., 2020 (nucleus sampling).

    No sort of the vocabulary: the leading 16 bits of a positive float32 order it as the number does, so one
    histogram of the mass by those bits tells in which narrow bucket the nucleus ends; only that one is sorted.
    """
    wanted = top_p * float(weights.sum(dtype=np.float64))
    head = weights[weights >= HEAD_WEIGHT]  # (H,)
    if head.sum(dtype=np.float64) < wanted:
        head = weights[weights > 0]
    buckets = (head.view(np.uint32) >> 16).astype(np.int64)  # (H,)
    buckets -= buckets.min()
    reached = np.cumsum(np.bincount(buckets, weights=head.astype(np.float64))[::-1])
    last = min(int(np.searchsorted(reached, wanted)), reached.size - 1)
    edge = -np.sort(-head[buckets == reached.size - 1 - last])
    within = np.cumsum(edge, dtype=np.float64) + (reached[last - 1] if last else 0.0)
    count = min(int(np.searchsorted(within, wanted)) + 1, edge.size)
    least = edge[count - 1]
    surplus = int((edge[count:] == least).sum())
    weights *= weights >= least
    if surplus:
        weights[np.flatnonzero(weights == least)[-surplus:]] = 0


def _invert(weights: Floats, uniform: float) -> int:
    """weights (V,) -> the id at which the running sum first exceeds `uniform` of the whole; never one of weight 0."""
    whole = weights.size // CDF_BLOCK * CDF_BLOCK
    blocks = weights[:whole].reshape(-1, CDF_BLOCK).sum(axis=1, dtype=np.float64)
    sums = np.cumsum(np.append(blocks, weights[whole:].sum(dtype=np.float64)))
    target, block = _first_above(sums, uniform * float(sums[-1]))
    start = block * CDF_BLOCK
    before = float(sums[block - 1]) if block else 0.0
    inside = np.cumsum(weights[start : start + CDF_BLOCK], dtype=np.float64)
    return start + _first_above(inside, target - before)[1]


def _first_above(sums: NDArray[np.float64], target: float) -> tuple[float, int]:
    # Rounding may carry the target up to the total itself, above which there is nothing.
    target = min(target, float(np.nextafter(sums[-1], 0.0)))
    return target, int(np.searchsorted(sums, target, side="right"))


def _top_logprobs(raw: Floats, token_id: int, count: int) -> dict[int, Logprob]:
    """raw (V,) -> {id: Logprob} of the `count` likeliest ids, likeliest first, and of `token_id`."""
    best = float(raw.max())
    norm = best + float(np.log(np.exp(raw - np.float32(best)).sum(dtype=np.float64)))
    count = min(count, raw.size)
    top = {int(i): Logprob(float(raw[i]) - norm, rank) for rank, i in enumerate(_largest_ids(raw, count), start=1)}
    if token_id not in top:
        own = raw[token_id]
        rank = 1 + int((raw > own).sum()) + int((raw[:token_id] == own).sum())
        top[token_id] = Logprob(float(own) - norm, rank)
    return top


def _largest_ids(raw: Floats, count: int) -> NDArray[np.int64]:
    """Ids of the `count` largest of raw (V,), largest first, equal ones by id."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    kth = np.partition(raw, raw.size - count)[raw.size - count]
    ids = np.flatnonzero(raw >= kth)
    return ids[np.argsort(-raw[ids], kind="stable")][:count]
