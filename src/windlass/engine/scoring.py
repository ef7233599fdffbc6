"""Scores known tokens: passages fill pass after pass, and every row's logits are taken as they come.

Nothing is drawn, so a passage leaves when it has been read and the next takes its place: every pass but the last is
as full as memory allows, and weights that stream are read as few times as can be.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from windlass.engine.engine import Engine
from windlass.engine.measurements import Measurements
from windlass.engine.passage import Passage
from windlass.engine.row import RowSpan
from windlass.engine.token_scores import TokenScores


class Scoring:
    """Runs passages to their end on one engine."""

    def __init__(self, engine: Engine, measurements: Measurements) -> None:
        self.engine, self.measurements = engine, measurements
        self._table = engine.cache.table

    @property
    def pass_tokens(self) -> int:
        """Tokens of a pass whose rows can all be scored in what the plan has for rows, if it was not made for that."""
        opened, plan = self.engine.opened, self.engine.plan
        row = opened.facts.row_bytes * opened.rows_scored
        return max(1, min(plan.pass_tokens, round(plan.memory.row / row)))

    def run(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """Yields each passage when it has been scored; they end in the order they come in."""
        waiting, reading = deque(passages), list[Passage]()
        self.measurements.begin_phase("prefill", sum(p.tokens for p in waiting), len(waiting))
        try:
            while waiting or reading:
                self._admit(waiting, reading)
                self._pass(reading)
                for passage in [p for p in reading if p.finished]:
                    reading.remove(passage)
                    self._table.release(passage.number)
                    yield passage
        finally:
            for passage in reading:
                self._table.release(passage.number)
        self.measurements.end_phase()

    def _admit(self, waiting: deque[Passage], reading: list[Passage]) -> None:
        """Takes passages in order, until the next pass is full or there is no place or page for another."""
        due, most = sum(p.tokens - p.read for p in reading), self.engine.plan.block_size
        while waiting and due < self.pass_tokens and len(reading) < most:
            if reading and self._table.pages_for(waiting[0].tokens) > self._table.room:
                return
            passage = waiting.popleft()
            reading.append(passage)
            self._table.reserve(passage.number, passage.tokens)
            due += passage.tokens

    def _pass(self, reading: list[Passage]) -> None:
        """One pass over what is due, as much as it holds."""
        spans, room = list[tuple[Passage, RowSpan]](), self.pass_tokens
        for passage in reading:
            if room:
                spans.append((passage, passage.next_span(room)))
                room -= len(spans[-1][1].token_ids)
        targets = [token for passage, span in spans for token in passage.targets(span)]
        self.measurements.begin_pass(self.pass_tokens - room, 0)
        scores = TokenScores(targets, self.engine.opened.device)
        for block in self.engine.runner.run_pass_in_blocks([span for _, span in spans]):
            scores.add(block)
        found = iter(scores.log_probabilities())
        for passage, span in spans:
            passage.logprobs += [next(found) for _ in range(span.wanted)]
            passage.read += len(span.token_ids)
        self.measurements.end_pass(len(reading))
