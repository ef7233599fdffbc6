"""The zig-zag over blocks: as many sequences as the plan holds go through the model together, pass after pass.

A pass reads every streamed weight once, whatever the number of sequences; so prompts are read together, in pieces if
they do not fit a pass, and then every sequence of the block gets one token a pass until it ends and leaves.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from windlass.engine.engine import Engine
from windlass.engine.measurements import Measurements
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
        """Yields what is new; the sequences of a request finish together with the last of them."""
        waiting = deque(sequences)
        for sequence in waiting:
            self._answers.setdefault(sequence.request.request_id, []).append(sequence)
        while waiting:
            block = self._next_block(waiting)
            try:
                yield from self._prefill(block)
                yield from self._decode(block)
            finally:
                for sequence in block:
                    self.engine.cache.table.release(sequence.number)

    def _next_block(self, waiting: deque[Sequence]) -> list[Sequence]:
        """Takes sequences, in order, while there is a place and pages for all they may become."""
        table, block = self.engine.cache.table, []
        while waiting and len(block) < self.engine.plan.block_size:
            if block and table.pages_for(waiting[0].most_tokens) > len(table.free):
                break
            sequence = waiting.popleft()
            table.reserve(sequence.number, sequence.most_tokens)
            block.append(sequence)
        return block

    def _prefill(self, block: list[Sequence]) -> Iterator[RequestOutput]:
        """Prompts first, all of the block; what ends with its first token has left already when decoding begins."""
        self.measurements.begin_phase("prefill", sum(s.tokens_left for s in block), len(block))
        while reading := [sequence for sequence in block if not sequence.token_ids]:
            yield from self._pass(reading, len(block))

    def _decode(self, block: list[Sequence]) -> Iterator[RequestOutput]:
        running = self._still_running(block)
        most = sum(sequence.max_tokens - len(sequence.token_ids) for sequence in running)
        self.measurements.begin_phase("decode", most, len(running))
        while running:
            yield from self._pass(running, len(running))
            running = self._still_running(running)

    def _still_running(self, sequences: list[Sequence]) -> list[Sequence]:
        """Those that go on. The others give their pages back at once; some must be read anew at their length."""
        turning = self.engine.opened.read_again_beyond
        for sequence in sequences:
            if sequence.finished:
                self.engine.cache.table.release(sequence.number)
            elif turning is not None and sequence.cached <= turning < sequence.length:
                sequence.read_again()
        return [sequence for sequence in sequences if not sequence.finished]

    def _pass(self, sequences: list[Sequence], running: int) -> Iterator[RequestOutput]:
        """One pass over what is due of the sequences, as much as a pass holds; who is read to the end gets a token."""
        self.measurements.begin_pass()
        spans = self._spans(sequences)
        drawing = [
            sequence for sequence in sequences if sequence.number in spans and spans[sequence.number].wants_logits
        ]
        at = 0
        for logits in self.engine.runner.run_pass(list(spans.values())):
            rows, at = drawing[at : at + logits.shape[0]], at + logits.shape[0]
            for sequence, token in zip(rows, sample(logits, [s.sampler_row() for s in rows]), strict=True):
                sequence.take(token)
        for sequence in sequences:
            sequence.cached += len(spans[sequence.number].token_ids) if sequence.number in spans else 0
        self.measurements.end_pass(sum(len(span.token_ids) for span in spans.values()), len(drawing), running)
        yield from self._new_outputs(drawing)

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
