"""A pass in which prompts are scanned: many of its rows are scored, and from a few of them tokens are drawn.

r rows of a block, v ids of it; D rows that are drawn from; V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch

from windlass.engine.logits_block import LogitsBlock
from windlass.engine.row import RowSpan
from windlass.engine.sequence import Sequence as Answer
from windlass.engine.token_scores import TokenScores


class ScannedPass:
    """Of the spans of a pass, with whose they are."""

    def __init__(self, spans: Sequence[tuple[Answer, RowSpan]], vocab_size: int, device: torch.device) -> None:
        self._spans, self._vocab_size = spans, vocab_size
        targets, self._draws = list[int](), list[int]()
        for answer, span in spans:
            targets += answer.scan.targets(span) if answer.scans and answer.scan else [0] * span.wanted
            if answer.draws_after(span):
                self._draws.append(len(targets) - 1)
        top = max((answer.scan.top for answer, _ in spans if answer.scan is not None), default=0)
        self._scores = TokenScores(targets, device, top)

    def logits(self, blocks: Iterable[LogitsBlock]) -> Iterator[torch.Tensor]:
        """Scores the blocks, and yields logits (d, V) of the D rows that are drawn from, in order, some at a time.

        Of a vocabulary that comes in parts these rows are put together: no more than there are sequences.
        """
        whole: torch.Tensor | None = None  # (D, V)
        for block in blocks:
            self._scores.add(block)
            drawn = [place for place, row in enumerate(self._draws) if 0 <= row - block.start < len(block.logits)]
            rows = block.logits[[self._draws[place] - block.start for place in drawn]]
            if block.logits.shape[1] == self._vocab_size:
                if drawn:
                    yield rows
                continue
            if whole is None:
                whole = rows.new_empty(len(self._draws), self._vocab_size)
            whole[drawn, block.first_id : block.first_id + block.logits.shape[1]] = rows
        if whole is not None and len(whole):
            yield whole

    def hand_over(self) -> None:
        """Gives every scan what came of its rows. Raises ModelError where a row is not finite."""
        tables, at = self._scores.tables(), 0
        for answer, span in self._spans:
            if answer.scans and answer.scan:
                answer.scan.take(span, tables[at : at + span.wanted])
            at += span.wanted
