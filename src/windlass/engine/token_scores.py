"""Log probabilities of known tokens, from logits that come a few rows, and a part of the vocabulary, at a time.

The log of the sum over the vocabulary is kept as a running value for each row, so no more than one block of logits is
ever held. R rows; r of them in a block; v ids in a block.
"""

from collections.abc import Sequence

import torch

from windlass.engine.logits_block import LogitsBlock
from windlass.errors import ModelError


class TokenScores:
    """`targets` are R ids, one a row; on `device`, where the logits are."""

    def __init__(self, targets: Sequence[int], device: torch.device) -> None:
        self._targets = torch.tensor(targets, dtype=torch.int64, device=device)  # (R,)
        self._chosen = torch.full((len(targets),), -torch.inf, device=device)  # (R,) logits of the targets
        self._norms = torch.full((len(targets),), -torch.inf, device=device)  # (R,) log of the sum of exponentials

    def add(self, block: LogitsBlock) -> None:
        """Takes a block; every row must meet the whole vocabulary once, in any order."""
        rows = slice(block.start, block.start + block.logits.shape[0])
        logits = block.logits.to(torch.float32)  # (r, v)
        self._norms[rows] = torch.logaddexp(self._norms[rows], torch.logsumexp(logits, dim=-1))
        places = self._targets[rows] - block.first_id
        here = (places >= 0) & (places < logits.shape[1])
        found = logits.gather(1, places.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]  # (r,)
        self._chosen[rows] = torch.where(here, found, self._chosen[rows])

    def log_probabilities(self) -> list[float]:
        """log_softmax of the raw logits at each row's target, in order. Raises ModelError where a row is not finite."""
        norms = self._norms.tolist()
        for row, norm in enumerate(norms):
            if norm - norm != 0.0:
                raise ModelError(
                    f"the logits of row {row} sum to {norm}, not a finite number; the weights may be damaged or "
                    "overflow in this precision: try dtype='float32'"
                )
        scores: list[float] = (self._chosen - self._norms).tolist()
        return scores
