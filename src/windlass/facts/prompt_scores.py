"""How likely a model finds the tokens of a prompt."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptScores:
    """`prompt_logprobs` gives each token's natural log of its probability after those before it, as vLLM names it.

    None for what was not scored: the first token, which nothing stands before, and whatever the caller left out.
    """

    prompt_token_ids: tuple[int, ...]
    prompt_logprobs: tuple[float | None, ...]

    @property
    def scored(self) -> int:
        """How many tokens have a log probability."""
        return sum(1 for logprob in self.prompt_logprobs if logprob is not None)

    @property
    def nats(self) -> float:
        """What the scored tokens cost together: the sum of their negative log probabilities."""
        return -math.fsum(logprob for logprob in self.prompt_logprobs if logprob is not None)
