"""What a request asks to change in its logits before a token is drawn: which ids may come, biases, and penalties.

All of it follows vLLM, in its order. The repetition penalty (Keskar et al., 2019, "CTRL") counts prompt and answer, as
in transformers; the presence and frequency penalties are OpenAI's and count the answer alone.

Shapes: V vocabulary, A ids that the answer holds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.facts.sampling_params import SamplingParams

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


class LogitChanges:
    """For one answer: `applied` to the logits before each draw, `take` what was drawn.

    The ids that `params` names must be of the vocabulary.
    """

    def __init__(self, params: SamplingParams, prompt_token_ids: Sequence[int]) -> None:
        self._params = params
        self._allowed = np.array(params.allowed_ids, dtype=np.int64)
        self._biased = np.array([token_id for token_id, _ in params.biases], dtype=np.int64)
        self._biases = np.array([bias for _, bias in params.biases], dtype=np.float32)
        self._prompt = np.unique(np.asarray(prompt_token_ids, dtype=np.int64))
        self._counts: dict[int, int] = {}

    def take(self, token_id: int) -> None:
        """The answer has grown by a token."""
        self._counts[token_id] = self._counts.get(token_id, 0) + 1

    def applied(self, raw: Floats) -> Floats:
        """raw (V,), left as it is -> logits (V,) as the request wants them; -inf where an id may not come."""
        logits = raw.copy()
        if self._allowed.size:
            logits.fill(-np.inf)
            logits[self._allowed] = raw[self._allowed]
        logits[self._biased] += self._biases
        if self._params.has_penalties:
            self._penalise(logits)
        return logits

    def _penalise(self, logits: Floats) -> None:
        params, size = self._params, len(self._counts)
        answered = np.fromiter(self._counts.keys(), np.int64, size)  # (A,)
        counts = np.fromiter(self._counts.values(), np.float32, size)  # (A,)
        if params.repetition_penalty != 1:
            ids, penalty = np.union1d(self._prompt, answered), np.float32(params.repetition_penalty)
            logits[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
        logits[answered] -= np.float32(params.frequency_penalty) * counts + np.float32(params.presence_penalty)
