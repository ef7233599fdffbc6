"""Scores known tokens: passages fill pass after pass, and every row's logits are taken as they come.

Nothing is drawn, so a passage leaves when it has been read and the next takes its place: every pass but the last is
as full as memory allows, and weights that stream are read as few times as can be. What passages begin with alike is
read by one of them (places.py), and by none where an earlier one has left it in the cache.
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
        self._places = engine.places
        # Pages on disk are read ahead before a pass, so what is shared must be there when it begins.
        self._follow_at_once = not engine.plan.disk_pages

    def finish(self, passages: Iterable[Passage]) -> None:
        """Runs all passages as one call that is measured."""
        done = list[Passage]()
        try:
            done.extend(self.run(passages))
        finally:
            self.measurements.end_scoring([passage.length for passage in done])

    def run(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """Yields each passage when it has been scored."""
        waiting, reading = deque(passages), list[Passage]()
        self.measurements.begin_phase("prefill", sum(p.length for p in waiting), len(waiting))
        try:
            while waiting or reading:
                self._admit(waiting, reading)
                self._pass(reading)
                for passage in [p for p in reading if p.finished]:
                    reading.remove(passage)
                    self._places.leave(passage)
                    yield passage
        finally:
            for passage in reading:
                self._places.leave(passage)
        self.measurements.end_phase()

    def _admit(self, waiting: deque[Passage], reading: list[Passage]) -> None:
        """Takes passages in order, until the next pass is full or there is no place or page for another."""
        due, most = sum(p.length - p.cached for p in reading), self.engine.plan.block_size
        while waiting and due < self.engine.scored_tokens and len(reading) < most:
            if reading and not self._places.has_room(waiting[0]):
                return
            passage = waiting.popleft()
            reading.append(passage)
            self._places.enter(passage)
            due += passage.length - passage.cached

    def _pass(self, reading: list[Passage]) -> None:
        """One pass over what is due, as much as it holds."""
        spans = self._spans(reading)
        targets = [token for passage, span in spans for token in passage.targets(span)]
        self.measurements.begin_pass(sum(len(span.token_ids) for _, span in spans), 0)
        scores = TokenScores(targets, self.engine.opened.device)
        for block in self.engine.runner.run_pass_in_blocks([span for _, span in spans]):
            scores.add(block)
        found = iter(scores.scores())
        for passage, span in spans:
            passage.cached = span.context + len(span.token_ids)
            passage.take(next(found) for _ in range(span.wanted))
        self.measurements.end_pass(len(reading))

    def _spans(self, reading: list[Passage]) -> list[tuple[Passage, RowSpan]]:
        """Whose tokens go through the next pass.

        A layer stores the keys and values of a row before later rows of it attend, so whoever follows may stand in the
        row that its leader stands in, behind it.
        """
        spans, room = list[tuple[Passage, RowSpan]](), self.engine.scored_tokens
        for passage in reading:
            if room and self._places.ready(passage):
                span = passage.next_span(room)
                spans.append((passage, span))
                room -= len(span.token_ids)
                if self._follow_at_once:
                    passage.cached += len(span.token_ids)
        return spans
