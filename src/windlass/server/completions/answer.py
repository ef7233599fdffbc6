"""What `/v1/completions` answers: whole, or in pieces as the text grows."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.facts.echo import Echo
from windlass.facts.logprob_forms import completion_logprobs
from windlass.server.completions.body import CompletionBody
from windlass.server.questions.growth import Gain, Growth
from windlass.server.questions.usage import Usage


class CompletionLogprobs(BaseModel):
    """Columns with an entry a token; nothing is known of a prompt's first token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One answer, or a piece of one. `index` counts over prompts and their `n` answers."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    token_ids: list[int] | None = None


class Completion(BaseModel):
    """The answers to all prompts of a request; in a stream, a piece of them. The last piece may hold `usage` alone."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


@dataclass(slots=True)
class CompletionWriter:
    """Writes the choices of one request. `echoes` has an entry a prompt, empty where none is repeated."""

    body: CompletionBody
    echoes: list[Echo]
    _growths: dict[int, Growth] = field(default_factory=dict)

    def pieces(self, number: int, output: RequestOutput) -> list[CompletionChoice]:
        """What the answers to a prompt gained; all of them when it is asked for the first time at their end."""
        choices = (self._piece(number, output, choice) for choice in output.outputs)
        return [choice for choice in choices if choice is not None]

    def _piece(self, number: int, output: RequestOutput, choice: CompletionOutput) -> CompletionChoice | None:
        index = number * len(output.outputs) + choice.index
        is_first = index not in self._growths
        growth = self._growths.setdefault(index, Growth())
        gain = growth.gain(choice)
        if not (gain.token_ids or gain.text) and (choice.finish_reason is None or growth.ended):
            return None
        growth.ended = choice.finish_reason is not None
        if self.body.scores_only:
            gain = Gain("", (), None if gain.logprobs is None else (), 0)
        echo = self.echoes[number] if self.echoes else None
        told: dict[str, Any] = {"index": index, "text": gain.text, "finish_reason": choice.finish_reason}
        if self.body.scores_only:
            told["finish_reason"] = "length"
        if echo is not None and is_first:
            told["text"] = echo.text + gain.text
        if gain.logprobs is not None:
            told["logprobs"] = _logprobs(output, gain, echo, is_first)
        if self.body.return_token_ids:
            told["token_ids"] = list(gain.token_ids)
        return CompletionChoice(**told)


def _logprobs(output: RequestOutput, gain: Gain, echo: Echo | None, is_first: bool) -> dict[str, object]:
    """Of new tokens; with an echo, of the prompt's before the first of them."""
    assert gain.logprobs is not None
    if echo is None or output.prompt_logprobs is None:
        return completion_logprobs(gain.token_ids, gain.logprobs, offset=gain.offset)
    if not is_first:
        return completion_logprobs(gain.token_ids, gain.logprobs, offset=len(echo.text) + gain.offset)
    known = tuple(table for table in output.prompt_logprobs if table is not None)
    first = [echo.first_token or f"token_id:{output.prompt_token_ids[0]}"]
    ids = (*output.prompt_token_ids[1:], *gain.token_ids)
    offset = 0 if echo.text.startswith(first[0]) else -len(first[0])
    return completion_logprobs(ids, (*known, *gain.logprobs), first, offset)
