"""A known text on its way through the engine: its tokens are scored, and nothing is drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from windlass.engine.reader import Reader
from windlass.engine.row import RowSpan
from windlass.engine.token_scores import TokenScore
from windlass.facts.continuation_score import ContinuationScore
from windlass.facts.prompt_scores import PromptScores
from windlass.facts.request import Request


@dataclass(slots=True, eq=False)
class Passage:
    """The prompt of `request`, whose tokens from `first` on are scored, `first` being 1 at least.

    `cached` of them are stored, some of them by a `leader` while there is one. The last token is never read, since
    nothing behind it is scored.
    """

    number: int
    request: Request
    first: int
    cached: int = 0
    leader: Reader | None = field(init=False, default=None)
    found: list[TokenScore] = field(init=False, default_factory=list)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The whole text."""
        return self.request.prompt_token_ids

    @property
    def length(self) -> int:
        """Tokens that go through the model."""
        return len(self.token_ids) - 1

    @property
    def most_tokens(self) -> int:
        """Tokens that are stored: all that go through the model."""
        return self.length

    @property
    def shareable(self) -> int:
        """The token before the first that is scored gives its score, so that it and what follows is read here."""
        return self.first - 1

    @property
    def has_begun(self) -> bool:
        """Nothing is drawn."""
        return False

    @property
    def finished(self) -> bool:
        """Whether every token has been read and scored."""
        return len(self.found) == len(self.token_ids) - self.first

    def ids(self, start: int, stop: int) -> list[int]:
        """Tokens that go through the model, by their places."""
        return list(self.token_ids[start : min(stop, self.length)])

    def next_span(self, most: int) -> RowSpan:
        """The next `most` or fewer tokens; logits are wanted where the next token is scored."""
        stop = min(self.cached + most, self.length)
        wanted = max(0, stop - max(self.cached, self.first - 1))
        return RowSpan(self.number, self.ids(self.cached, stop), self.cached, len(self.token_ids), wanted)

    def targets(self, span: RowSpan) -> Sequence[int]:
        """The ids whose log probabilities the wanted rows of a span give."""
        stop = span.context + len(span.token_ids)
        return self.token_ids[stop - span.wanted + 1 : stop + 1]

    def take(self, scores: Iterable[TokenScore]) -> None:
        """What the wanted rows of a span have given."""
        self.found += scores

    def scores(self) -> PromptScores:
        """What was found, token by token of the text."""
        return PromptScores(self.token_ids, (None,) * self.first + tuple(score.logprob for score in self.found))

    def continuation(self) -> ContinuationScore:
        """What was found of the tokens from `first` on."""
        logprobs = tuple(score.logprob for score in self.found)
        return ContinuationScore(self.token_ids[self.first :], logprobs, all(score.is_greedy for score in self.found))
