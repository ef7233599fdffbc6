"""What an answer has gained since it was last looked at."""

from dataclasses import dataclass

from windlass.facts.completion import CompletionOutput, Logprob

Tables = tuple[dict[int, Logprob], ...]


@dataclass(frozen=True, slots=True)
class Gain:
    """`logprobs` has a table a token, or is None where none were asked for; `offset`: characters shown before."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: Tables | None
    offset: int


class Growth:
    """Follows one answer. Text that was shown is never taken back, so that the new is what stands behind it.

    `ended` is for whoever writes it, to say the end once.
    """

    def __init__(self) -> None:
        self._text = self._tokens = 0
        self.ended = False

    def gain(self, choice: CompletionOutput) -> Gain:
        """The new part of an answer that is given from its beginning."""
        text, ids = choice.text[self._text :], choice.token_ids[self._tokens :]
        tables = None if choice.logprobs is None else choice.logprobs[self._tokens :]
        gained = Gain(text, ids, tables, self._text)
        self._text, self._tokens = len(choice.text), len(choice.token_ids)
        return gained
