"""How likely a model finds a text behind a prompt: what a benchmark of several choices asks."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContinuationScore:
    """`token_logprobs` gives the natural log of each token's probability after the prompt and the tokens before it.

    `is_greedy`: each is the likeliest of the vocabulary there (of equal ones the lower id), so that greedy decoding of
    as many tokens would give just these.
    """

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def cumulative_logprob(self) -> float:
        """Of the continuation as a whole: the sum."""
        return math.fsum(self.token_logprobs)
