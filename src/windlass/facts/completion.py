"""What comes back for a request, in vLLM's spelling: `outs[0].outputs[0].text`."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Logprob:
    """A candidate for one position: natural log of its probability under the raw logits (before temperature).

    `rank` counts from 1, the most likely token of the vocabulary; None where it was not counted, which happens only to
    tokens of a prompt that are not among the likeliest asked for. `decoded_token` is filled by the engine, which has
    the tokenizer.
    """

    logprob: float
    rank: int | None
    decoded_token: str | None = None


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One answer. `finish_reason` is None while it grows; `stop_reason` is the stop string or stop id that ended it.

    `token_ids` includes the id that ended the answer; `text` does not show it. `cumulative_logprob` and `logprobs`
    (one mapping a token, from token id) are None unless the request asked for logprobs.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    cumulative_logprob: float | None = None
    logprobs: tuple[dict[int, Logprob], ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """A request with its answers so far, `n` of them; `finished` when all have a finish_reason.

    `prompt_logprobs` is None unless the request asked for it: for each token of the prompt a mapping from token id, of
    the likeliest ids and its own, and None for the first.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    finished: bool
    prompt_logprobs: tuple[dict[int, Logprob] | None, ...] | None = None
