"""The log probabilities of a prompt's own tokens, taken while the prompt is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from windlass.engine.row import RowSpan
from windlass.engine.token_texts import with_text
from windlass.facts.completion import Logprob
from windlass.model.tokenizer import AnyTokenizer

Table = dict[int, Logprob]


@dataclass(slots=True)
class PromptScan:
    """`tables` has {id: Logprob} of the `top` likeliest ids and of the prompt's own, for each token but the first.

    They come in order, in as many passes as the prompt is read in; what is read again is not taken again.
    """

    token_ids: tuple[int, ...]
    top: int
    tokenizer: AnyTokenizer | None
    tables: list[Table] = field(init=False, default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether all have come."""
        return len(self.tables) == len(self.token_ids) - 1

    def targets(self, span: RowSpan) -> Sequence[int]:
        """The ids that the rows of a span are to be scored at; 0 for those behind which the prompt has no token."""
        behind = self.token_ids[span.context + 1 : span.context + 1 + len(span.token_ids)]
        return [*behind, *[0] * (len(span.token_ids) - len(behind))]

    def take(self, span: RowSpan, found: Sequence[Table]) -> None:
        """The tables of each row of a span; they may hold more than the likeliest `top` ids."""
        for place, table in enumerate(found, span.context + 1):
            if len(self.tables) + 1 == place < len(self.token_ids):
                own, top = self.token_ids[place], list(table)[: self.top]
                wanted = {token_id: table[token_id] for token_id in (*top, own)}
                self.tables.append(with_text(wanted, self.tokenizer))

    def logprobs(self) -> tuple[Table | None, ...] | None:
        """As vLLM gives them, None for the first token; None for all before the prompt has been read."""
        return (None, *self.tables) if self.finished else None
