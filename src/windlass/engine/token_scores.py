"""Log probabilities of known tokens, from logits that come a few rows, and a part of the vocabulary, at a time.

The log of the sum over the vocabulary is kept as a running value for each row, and so are the likeliest ids, so no more
than one block of logits is ever held. R rows; r of them in a block; v ids in a block; K likeliest ids that are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from windlass.engine.logits_block import LogitsBlock
from windlass.errors import ModelError
from windlass.facts.completion import Logprob

# An int64 that orders a logit and its id at once: float32 bits as a number that orders alike, and behind them the id,
# the lower one larger. Keys are never equal, so what is kept of them does not depend on how the vocabulary is cut.
ID_BITS = 32
MOST_ID = 2**31 - 1
# Keys of so many logits at a time: they take twice the memory of these.
KEYS_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class TokenScore:
    """Of one known token. `is_greedy`: no other is likelier, nor as likely with a lower id."""

    logprob: float
    is_greedy: bool


class TokenScores:
    """`targets` are R ids, one a row; on `device`, where the logits are.

    With `top` the K = top likeliest ids of each row are kept too, and the target is ranked.
    """

    def __init__(self, targets: Sequence[int], device: torch.device, top: int | None = None) -> None:
        rows = len(targets)
        self._targets = torch.tensor(targets, dtype=torch.int64, device=device)  # (R,)
        self._chosen = torch.full((rows,), -torch.inf, device=device)  # (R,) logits of the targets
        self._norms = torch.full((rows,), -torch.inf, device=device)  # (R,) log of the sum of exponentials
        self._ranks = top is not None
        lowest = torch.iinfo(torch.int64).min
        self._keys = torch.full((rows, max(1, top or 0)), lowest, device=device)  # (R, K or 1), largest first
        self._before = torch.zeros(rows, dtype=torch.int64, device=device)  # (R,) ids that come before the target
        self._met = torch.zeros(rows, dtype=torch.bool, device=device)  # (R,) whether the target has come
        self._missed = torch.zeros(rows, dtype=torch.bool, device=device)  # (R,) whether ids came that were not ranked
        self._top = top or 0

    def add(self, block: LogitsBlock) -> None:
        """Takes a block; every row must meet the whole vocabulary once, in any order."""
        rows = slice(block.start, block.start + block.logits.shape[0])
        logits = block.logits.to(torch.float32)  # (r, v)
        self._norms[rows] = torch.logaddexp(self._norms[rows], torch.logsumexp(logits, dim=-1))
        places = self._targets[rows] - block.first_id
        here = (places >= 0) & (places < logits.shape[1])
        found = logits.gather(1, places.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]  # (r,)
        self._chosen[rows] = torch.where(here, found, self._chosen[rows])
        self._met[rows] |= here
        self._keep_likeliest(logits, block)
        if self._ranks:
            self._rank(logits, block)

    def scores(self) -> list[TokenScore]:
        """Of each row's target, in order. Raises ModelError where a row is not finite."""
        greedy = (_ids(self._keys[:, 0]) == self._targets).tolist()
        pairs = zip(self.log_probabilities(), greedy, strict=True)
        return [TokenScore(logprob, is_greedy) for logprob, is_greedy in pairs]

    def log_probabilities(self) -> list[float]:
        """log_softmax of the raw logits at each row's target, in order. Raises ModelError where a row is not finite."""
        norms = self._norms.tolist()
        for row, norm in enumerate(norms):
            if norm - norm != 0.0:
                raise ModelError(
                    f"the logits of row {row} sum to {norm}, not a finite number; the weights may be damaged or "
                    "overflow in this precision: try --dtype float32 (dtype='float32' in Python)"
                )
        scores: list[float] = (self._chosen - self._norms).tolist()
        return scores

    def tables(self) -> list[dict[int, Logprob]]:
        """{id: Logprob} of each row's K likeliest ids, likeliest first, and of its target. Raises as scores does.

        The rank of a target that is not among them is None where parts of the vocabulary came before its own.
        """
        own = self.log_probabilities()
        ids, logprobs = _ids(self._keys).tolist(), (_logits(self._keys) - self._norms[:, None]).tolist()
        ranks, missed, targets = (self._before + 1).tolist(), self._missed.tolist(), self._targets.tolist()
        tables = []
        for row, target in enumerate(targets):
            likeliest = zip(ids[row][: self._top], logprobs[row], strict=False)
            table = {token: Logprob(logprob, rank) for rank, (token, logprob) in enumerate(likeliest, 1)}
            if target not in table:
                table[target] = Logprob(own[row], None if missed[row] else ranks[row])
            tables.append(table)
        return tables

    def _keep_likeliest(self, logits: torch.Tensor, block: LogitsBlock) -> None:
        """logits (r, v): the K largest keys of them and of those before."""
        kept, at_once = self._keys.shape[1], max(1, KEYS_AT_ONCE // logits.shape[1])
        for start in range(0, logits.shape[0], at_once):
            part = logits[start : start + at_once]
            rows = slice(block.start + start, block.start + start + part.shape[0])
            if kept == 1:
                best, ids = part.max(dim=-1, keepdim=True)
                new = _packed(best, ids + block.first_id)
            else:
                ids = torch.arange(block.first_id, block.first_id + part.shape[1], device=part.device)
                new = _packed(part, ids[None]).topk(min(kept, part.shape[1]), dim=-1).values
            self._keys[rows] = torch.cat([self._keys[rows], new], dim=-1).topk(kept, dim=-1).values

    def _rank(self, logits: torch.Tensor, block: LogitsBlock) -> None:
        """logits (r, v): how many of them come before the target, where that is known by now."""
        rows = slice(block.start, block.start + logits.shape[0])
        own, met = self._chosen[rows, None], self._met[rows]
        ids = torch.arange(block.first_id, block.first_id + logits.shape[1], device=logits.device)
        before = (logits > own) | ((logits == own) & (ids[None] < self._targets[rows, None]))
        self._before[rows] += torch.where(met, before.sum(-1), 0)
        self._missed[rows] |= ~met


def _packed(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """logits float32 and ids of one shape -> keys, int64."""
    bits = (logits + 0.0).view(torch.int32)  # minus zero becomes zero
    ordered = bits ^ ((bits >> 31) & MOST_ID)
    return (ordered.to(torch.int64) << ID_BITS) + (MOST_ID - ids)


def _ids(keys: torch.Tensor) -> torch.Tensor:
    return MOST_ID - (keys & (2**ID_BITS - 1))


def _logits(keys: torch.Tensor) -> torch.Tensor:
    ordered = (keys >> ID_BITS).to(torch.int32)
    return (ordered ^ ((ordered >> 31) & MOST_ID)).view(torch.float32)
