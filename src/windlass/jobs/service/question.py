"""What somebody asks of a service."""

from dataclasses import dataclass

from windlass.facts.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt as token ids, and how to answer it. A smaller `priority` goes first: 0 a person who waits, 1 a batch.

    `begun` are tokens of each of its answers that an earlier run has drawn, to go on from.
    """

    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    priority: int = 0
    begun: tuple[tuple[int, ...], ...] = ()
