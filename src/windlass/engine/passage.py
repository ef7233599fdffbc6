"""A known text on its way through the engine: its tokens are scored, and nothing is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from windlass.engine.row import RowSpan
from windlass.facts.prompt_scores import PromptScores


@dataclass(slots=True)
class Passage:
    """`token_ids` of which those from `first` on are scored, `first` being 1 at least; `read` of them are stored.

    The last token is never read, since nothing behind it is scored.
    """

    number: int
    token_ids: tuple[int, ...]
    first: int
    read: int = 0
    logprobs: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return len(self.token_ids) - 1

    @property
    def finished(self) -> bool:
        """Whether all of them have."""
        return self.read == self.tokens

    def next_span(self, most: int) -> RowSpan:
        """The next `most` or fewer tokens; logits are wanted where the next token is scored."""
        stop = min(self.read + most, self.tokens)
        wanted = max(0, stop - max(self.read, self.first - 1))
        return RowSpan(self.number, self.token_ids[self.read : stop], self.read, len(self.token_ids), wanted)

    def targets(self, span: RowSpan) -> Sequence[int]:
        """The ids whose log probabilities the wanted rows of a span give."""
        stop = span.context + len(span.token_ids)
        return self.token_ids[stop - span.wanted + 1 : stop + 1]

    def scores(self) -> PromptScores:
        """What was found."""
        return PromptScores(self.token_ids, (None,) * self.first + tuple(self.logprobs))
