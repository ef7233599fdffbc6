"""The zig-zag over blocks: as many sequences as the plan holds go through the model together, pass after pass.

A pass reads every streamed weight once, whatever the number of sequences; so prompts are read together, in pieces if
they do not fit a pass, and then every sequence of the block gets one token a pass until it ends and leaves.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import torch

from windlass.engine.engine import Engine
from windlass.engine.measurements import Measurements
from windlass.engine.places import Places
from windlass.engine.row import RowSpan
from windlass.engine.sampler import sample
from windlass.engine.sequence import Sequence
from windlass.facts.completion import RequestOutput


class Generation:
    """Runs sequences to their end. `stream` yields a request again after each of its tokens, else once at its end."""

    def __init__(self, engine: Engine, measurements: Measurements, stream: bool) -> None:
        self.engine, self.measurements, self.stream = engine, measurements, stream
        self._answers: dict[str, list[Sequence]] = {}

    def run(self, sequences: Iterable[Sequence]) -> Iterator[RequestOutput]:
        """Yields what is new; the sequences of a request come one after the other, and finish with the last of them."""
        waiting = deque(sequences)
        for sequence in waiting:
            self._answers.setdefault(sequence.request.request_id, []).append(sequence)
        places = Places(self.engine.cache, self.engine.opened.read_again_beyond, waiting)
        try:
            while waiting:
                yield from self._run_block(self._next_block(waiting, places), places)
        finally:
            places.close()

    def _run_block(self, block: list[Sequence], places: Places) -> Iterator[RequestOutput]:
        try:
            yield from self._prefill(block, places)
            yield from self._decode(block, places)
        finally:
            for sequence in block:
                places.leave(sequence)

    def _next_block(self, waiting: deque[Sequence], places: Places) -> list[Sequence]:
        """Takes sequences, in order, while there is a place and pages for all they may become."""
        block: list[Sequence] = []
        while waiting and len(block) < self.engine.plan.block_size:
            if waiting[0].finished:
                places.pass_over(waiting.popleft())
            elif block and not places.has_room(waiting[0]):
                break
            else:
                block.append(waiting.popleft())
                places.enter(block[-1])
        return block

    def _prefill(self, block: list[Sequence], places: Places) -> Iterator[RequestOutput]:
        """Prompts first, all of the block, each read by the first answer to it; the others get a token with it.

        What ends with its first token has left already when decoding begins.
        """
        readers = list({s.request.request_id: s for s in reversed(block) if not s.token_ids}.values())[::-1]
        self.measurements.begin_phase("prefill", sum(reader.tokens_left for reader in readers), len(block))
        while reading := [reader for reader in readers if not reader.token_ids]:
            yield from self._pass(reading, len(block), places)
        self.measurements.end_phase()

    def _decode(self, block: list[Sequence], places: Places) -> Iterator[RequestOutput]:
        running = self._still_running(block, places)
        most = sum(sequence.max_tokens - len(sequence.token_ids) for sequence in running)
        self.measurements.begin_phase("decode", most, len(running))
        while running:
            yield from self._pass(running, len(running), places)
            running = self._still_running(running, places)
        self.measurements.end_phase()

    def _still_running(self, sequences: list[Sequence], places: Places) -> list[Sequence]:
        """Those that go on. The others give their pages back at once; some must be read anew at their length."""
        turning = self.engine.opened.read_again_beyond
        for sequence in sequences:
            if sequence.finished:
                places.leave(sequence)
            elif turning is not None:
                sequence.turn(turning)
        return [sequence for sequence in sequences if not sequence.finished]

    def _pass(self, sequences: list[Sequence], running: int, places: Places) -> Iterator[RequestOutput]:
        """One pass over what is due of the sequences, as much as a pass holds; who is read to the end gets a token."""
        spans = self._spans(sequences)
        drawing = [sequence for sequence in sequences if sequence.number in spans and spans[sequence.number].wanted]
        self.measurements.begin_pass(sum(len(span.token_ids) for span in spans.values()), len(drawing))
        first = [self._answers[s.request.request_id] for s in drawing if not s.token_ids]
        at = 0
        for logits in self.engine.runner.run_pass(list(spans.values())):
            self._draw(logits, drawing[at : at + logits.shape[0]])
            at += logits.shape[0]
        for sequence in sequences:
            sequence.cached += len(spans[sequence.number].token_ids) if sequence.number in spans else 0
        for answers in first:
            places.prompt_read(answers)
        self.measurements.end_pass(running)
        yield from self._new_outputs(drawing)

    def _draw(self, logits: torch.Tensor, rows: list[Sequence]) -> None:
        """logits (r, V): a token for the sequence of each row, or for every answer to the prompt it has read."""
        drawers = [[row] if row.token_ids else self._answers[row.request.request_id] for row in rows]
        if all(len(answers) == 1 for answers in drawers):
            _take(logits, rows)
            return
        for row, answers in enumerate(drawers):
            _take(logits[row : row + 1].expand(len(answers), -1), answers)

    def _spans(self, sequences: list[Sequence]) -> dict[int, RowSpan]:
        """What is due of each sequence, in order, until the pass is full."""
        spans, room = {}, self.engine.plan.pass_tokens
        for sequence in sequences:
            if room:
                span = sequence.next_span(room)
                room -= len(span.token_ids)
                spans[sequence.number] = span
        return spans

    def _new_outputs(self, drawn: list[Sequence]) -> Iterator[RequestOutput]:
        for request_id in dict.fromkeys(sequence.request.request_id for sequence in drawn):
            answers = self._answers[request_id]
            finished = all(sequence.finished for sequence in answers)
            if finished or self.stream:
                request = answers[0].request
                outputs = tuple(sequence.output() for sequence in answers)
                yield RequestOutput(request_id, request.prompt, request.prompt_token_ids, outputs, finished)
            if finished:
                del self._answers[request_id]


def _take(logits: torch.Tensor, sequences: list[Sequence]) -> None:
    """logits (r, V): the next token of each of the r sequences."""
    for sequence, token in zip(sequences, sample(logits, [s.sampler_row() for s in sequences]), strict=True):
        sequence.take(token)
