"""One prompt on its way through the engine."""

from dataclasses import dataclass

from windlass.errors import RequestError
from windlass.facts.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt as token ids, and how to answer it. `prompt` is its text, None where the caller gave ids.

    `begun` are the tokens of each of its answers that an earlier run has drawn: they are gone on from. Where places are
    few, a smaller `priority` goes first: 0 for whoever waits for the answer, 1 for what can wait.
    Raises RequestError for a prompt without tokens or with something that is no token id; the others go on.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    sampling_params: SamplingParams
    begun: tuple[tuple[int, ...], ...] = ()
    priority: int = 0

    def __post_init__(self) -> None:
        if not self.prompt_token_ids:
            raise RequestError(f"request {self.request_id}: the prompt has 0 tokens; give at least 1")
        for token_id in self.prompt_token_ids:
            if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
                raise RequestError(
                    f"request {self.request_id}: prompt_token_ids holds {token_id!r}; ids are whole numbers from 0"
                )
