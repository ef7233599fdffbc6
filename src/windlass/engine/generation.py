"""Continuous blocks: as many sequences as the plan holds go through the model together, pass after pass.

A pass reads every streamed weight once, whatever its tokens, so a place that falls free is filled at the next pass: the
new prompt is read, in pieces if need be, in the same row as the tokens that the others decode. Orca (Yu et al., OSDI
2022, section 3) schedules so by iteration; chunked prefill beside decode is of Sarathi (Agrawal et al., 2023).
"""

from collections.abc import Callable, Iterable, Iterator

import torch

from windlass.engine.block_state import BlockCounts, BlockState, block_state
from windlass.engine.engine import Engine
from windlass.engine.line import Answers, Line, ListedLine
from windlass.engine.measurements import Measurements
from windlass.engine.precedence import Precedence, in_order, reading_share
from windlass.engine.row import RowSpan
from windlass.engine.sampler import sample
from windlass.engine.scanned_pass import ScannedPass
from windlass.engine.sequence import Sequence
from windlass.engine.tally import Tally
from windlass.facts.completion import RequestOutput
from windlass.facts.work_done import PassesDone

_NOTHING_LEFT = "allowed_token_ids, bad_words and min_tokens leave no token; allow more"


class Generation:
    """Runs answers to their end, those to one request together. They are taken from `requests` as places fall free.

    `stream` yields a request again after each of its tokens, else once at its end. `until` is asked after each pass;
    once it says so nothing more is begun, and what has not ended is left. `most_tokens` may come in all, as far as that
    is known. What can wait leaves `reserve` tokens of the cache to what cannot, see Precedence. `tell` hears how the
    block stands.
    """

    def __init__(
        self,
        engine: Engine,
        measurements: Measurements,
        stream: bool = False,
        until: Callable[[], bool] | None = None,
        most_tokens: int | None = None,
        reserve: int = 0,
        tell: Callable[[BlockState], None] | None = None,
    ) -> None:
        self.engine, self.measurements, self.stream = engine, measurements, stream
        self.tally = Tally()
        self._until, self._most_tokens = until or _never, most_tokens
        self._places, self._tell = engine.places, tell
        self._precedence = Precedence(engine.plan, engine.places, reserve)
        self._counts = BlockCounts(self._precedence.reserved_pages)
        self._line: Line = ListedLine(())
        self._running: list[Sequence] = []
        self._entered: list[str] = []

    def run(self, requests: Iterable[Answers]) -> Iterator[RequestOutput]:
        """Yields what is new; the answers to a request come one after the other, and finish with the last of them."""
        return self.run_line(ListedLine(requests))

    def run_line(self, line: Line) -> Iterator[RequestOutput]:
        """The same over a line that may grow meanwhile, until it is closed."""
        self._line = line
        try:
            yield from self._ended_already(self._admit())
            self.measurements.begin_phase("prefill", sum(s.tokens_left for s in self._readers()), len(self._running))
            while self._running or not line.closed:
                if self._running:
                    yield from self._pass()
                if self._until():
                    break
                self._give_up()
                yield from self._ended_already(self._admit())
            self.measurements.end_phase()
        finally:
            for sequence in self._running:
                self._places.leave(sequence)
                self.tally.count(sequence)

    def _admit(self) -> list[Sequence]:
        """Takes sequences, in order, while there is a place and pages for all they may become, or others leave theirs.

        Those that need none, since they have ended, are returned.
        """
        ended, block = list[Sequence](), self.engine.plan.block_size
        while sequence := self._line.first(not (self._running or ended), len(self._running) >= block):
            if sequence.finished:
                self._line.take()
                ended.append(sequence)
                self.tally.count(sequence)
                continue
            leaving = self._precedence.leaving_for(sequence, self._running)
            if leaving is None:
                break
            if leaving:
                for other in leaving:
                    self._set_aside(other)
                continue
            self._line.take()
            self._running.append(sequence)
            self._places.enter(sequence)
            self._entered.append(sequence.request.request_id)
        self._tell_state()
        return ended

    def _set_aside(self, sequence: Sequence) -> None:
        """Gives its place to another and waits for one; what it stored is kept as long as there is room."""
        self._leave([sequence])
        sequence.set_aside()
        self._line.put_back(sequence)
        self._counts.set_aside += 1

    def _give_up(self) -> None:
        """What nobody wants any more leaves."""
        ids = self._line.given_up()
        leaving = [sequence for sequence in self._running if sequence.request.request_id in ids]
        self._leave(leaving)
        for sequence in leaving:
            self.tally.count(sequence)
        # Told at once: with nobody left, the next request may be hours away.
        if leaving:
            self._tell_state()

    def _leave(self, leaving: list[Sequence]) -> None:
        for sequence in leaving:
            self._places.leave(sequence)
        self._running = [sequence for sequence in self._running if sequence not in leaving]

    def _readers(self) -> list[Sequence]:
        """Those with more to read than the last token, in the order they came in."""
        return [sequence for sequence in self._running if not sequence.decodes and sequence.leader is None]

    def _pass(self) -> Iterator[RequestOutput]:
        """One pass over what is due of the sequences, as much as it holds; who is read to the end gets a token."""
        due = self._due()
        spans = [(sequence, sequence.next_span(room)) for sequence, room in due]
        decoding = sum(sequence.decodes for sequence, _ in spans)
        tokens = sum(len(span.token_ids) for _, span in spans)
        self._tell_phase(decoding)
        drawing = [sequence for sequence, span in spans if sequence.draws_after(span)]
        self.measurements.begin_pass(tokens - decoding, decoding)
        first = [(sequence, self._answers_of(sequence)) for sequence in drawing if not sequence.token_ids]
        read_to_the_end = [sequence for sequence in drawing if not sequence.decodes]
        at = 0
        for logits in self._logits(spans):
            self._draw(logits, drawing[at : at + logits.shape[0]])
            at += logits.shape[0]
        for sequence, span in spans:
            sequence.cached += len(span.token_ids)
        siblings = {reader.number: answers for reader, answers in first}
        for sequence in read_to_the_end:
            self._places.prompt_read(sequence, siblings.get(sequence.number, ()))
        self.measurements.end_pass(len(self._running))
        self._counts.last_pass = PassesDone(1, tokens - decoding, decoding)
        new = self._new_outputs(drawing)
        self._let_go()
        self._tell_state()
        yield from new

    def _logits(self, spans: list[tuple[Sequence, RowSpan]]) -> Iterator[torch.Tensor]:
        """Logits (r, V) of the rows that tokens are drawn from, in order; scans of prompts get what is theirs."""
        row = [span for _, span in spans]
        if not any(sequence.scans for sequence, _ in spans):
            yield from self.engine.runner.run_pass(row)
            return
        scanned = ScannedPass(spans, self.engine.opened.facts.vocab_size, self.engine.opened.device)
        yield from scanned.logits(self.engine.runner.run_pass_in_blocks(row))
        scanned.hand_over()

    def _due(self) -> list[tuple[Sequence, int]]:
        """Whose tokens go through the next pass, and how many at most: who decodes first, then who reads.

        Of either, the urgent ones come first; how much is read is up to `reading_share`.
        """
        running = in_order(self._running)
        scans = any(sequence.scans for sequence in self._running)
        room = self.engine.scored_tokens if scans else self.engine.plan.pass_tokens
        due = [(sequence, 1) for sequence in running if sequence.decodes][:room]
        share = reading_share(running, self.engine.plan, room - len(due), self._line.live)
        room, patient_room = share.most, share.most_patient
        for sequence in running:
            patient = sequence.number in share.patient
            most = min(room, patient_room) if patient else room
            if most and not sequence.decodes and self._places.ready(sequence):
                due.append((sequence, most))
                read = min(most, sequence.tokens_left)
                room -= read
                patient_room -= read if patient else 0
        return due

    def _tell_phase(self, decoding: int) -> None:
        """Prompts alone are read in a phase of their own; from the first token that is decoded on, answers count."""
        if decoding and self.measurements.phase == "prefill":
            self.measurements.end_phase()
            known = sum(s.max_tokens - len(s.token_ids) for s in (*self._running, *self._line.waiting()))
            self.measurements.begin_phase("decode", self._most_tokens or known, len(self._running))

    def _let_go(self) -> None:
        """Who has ended gives its pages back at once; some must be read anew at their length."""
        turning = self.engine.opened.read_again_beyond
        for sequence in self._running:
            if sequence.finished:
                self._places.leave(sequence)
                self.tally.count(sequence)
            elif turning is not None:
                sequence.turn(turning)
        self._running = [sequence for sequence in self._running if not sequence.finished]

    def _tell_state(self) -> None:
        if self._tell is None:
            return
        waiting, entered = sum(1 for _ in self._line.waiting()), tuple(self._entered)
        self._entered.clear()
        self._tell(block_state(self.engine, self.measurements, self._counts, self._running, waiting, entered))

    def _answers_of(self, sequence: Sequence) -> Answers:
        return self._line.answers[sequence.request.request_id]

    def _draw(self, logits: torch.Tensor, rows: list[Sequence]) -> None:
        """logits (r, V): a token for the sequence of each row, or for every answer to the prompt it has read."""
        drawers = [[row] if row.token_ids else [a for a in self._answers_of(row) if not a.token_ids] for row in rows]
        self._counts.generated_tokens += sum(map(len, drawers))
        if all(len(answers) == 1 for answers in drawers):
            _take(logits, rows)
            return
        for row, answers in enumerate(drawers):
            _take(logits[row : row + 1].expand(len(answers), -1), answers)

    def _new_outputs(self, drawn: list[Sequence]) -> list[RequestOutput]:
        new = list[RequestOutput]()
        for request_id in dict.fromkeys(sequence.request.request_id for sequence in drawn):
            answers = self._line.answers[request_id]
            finished = all(sequence.finished for sequence in answers)
            if finished or self.stream:
                new.append(_output(answers, finished))
            if finished:
                del self._line.answers[request_id]
        return new

    def _ended_already(self, sequences: list[Sequence]) -> Iterator[RequestOutput]:
        """Outputs of requests whose answers had all ended before they came here."""
        for sequence in sequences:
            answers = self._line.answers.get(sequence.request.request_id)
            if answers is not None and all(answer.finished for answer in answers):
                del self._line.answers[sequence.request.request_id]
                yield _output(answers, True)


def _output(answers: Answers, finished: bool) -> RequestOutput:
    request = answers[0].request
    outputs = tuple(sequence.output() for sequence in answers)
    scan = next((sequence.scan for sequence in answers if sequence.scan is not None), None)
    scanned = scan.logprobs() if scan is not None else None
    return RequestOutput(request.request_id, request.prompt, request.prompt_token_ids, outputs, finished, scanned)


def _take(logits: torch.Tensor, sequences: list[Sequence]) -> None:
    """logits (r, V): the next token of each of the r sequences, or the end of one that may have none."""
    for sequence, token in zip(sequences, sample(logits, [s.sampler_row() for s in sequences]), strict=True):
        if token is None:
            sequence.stop.cut(_NOTHING_LEFT)
        else:
            sequence.take(token)


def _never() -> bool:
    return False
