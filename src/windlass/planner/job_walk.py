"""The passes of a job, one after the other, as engine.generation makes them.

Whoever decodes gives a token to each pass; what room is left goes to prompts, in the order they came in. Who has ended
leaves, and the next ones in line come in while there are places and pages for all they may become. A prompt that begins
as an earlier one waits until that one has been read. Passes between two events are alike and are told together.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from windlass.facts.plan import Plan
from windlass.planner.job_rows import JobRows, Rows


class Stretch(NamedTuple):
    """`passes` passes in a row, in each of which `decoding` sequences decode and `reading` tokens of prompts are read.

    `context` tokens is what decoding sequences attend to together in the first of them, each itself among them; `drawn`
    logits are wanted. `sequences` hold a place. `steady` passes repeat in a longer job: as many have left as
    had a place at most, and somebody waits.
    """

    passes: int
    decoding: int
    context: int
    reading: int
    drawn: int
    sequences: int
    steady: bool


def walk(rows: JobRows, plan: Plan) -> Iterator[Stretch]:
    """Every pass of the rows, in order."""
    block = _Block(plan.block_size, plan.num_pages - rows.common_pages, plan.pass_tokens, deque(rows.rows))
    block.admit()
    while block.running:
        yield block.step()
        block.admit()


@dataclass(slots=True)
class _Reader:
    """Rows whose prompts are being read, one after the other: the first has `left` tokens to go."""

    rows: Rows
    count: int
    left: int


@dataclass(slots=True)
class _Block:
    """Who has a place. `stored` counts the tokens that decoding sequences hold together, `now` the passes so far."""

    size: int
    pages: int
    room: int
    waiting: deque[Rows]
    running: int = 0
    decoding: int = 0
    stored: int = 0
    now: int = 0
    left: int = 0
    peak: int = 0
    readable: bool = False
    _readers: deque[_Reader] = field(default_factory=deque)
    _ends: list[tuple[int, int, Rows]] = field(default_factory=list)

    def admit(self) -> None:
        """Those next in line come in, as many as there are places and pages for; one alone in any case."""
        while self.waiting and self.running < self.size:
            rows = self.waiting[0]
            fitting = min(rows.number, self.size - self.running, self.pages // max(1, rows.pages))
            if fitting < 1:
                if self.running:
                    return
                fitting = 1
            self.waiting.popleft()
            if fitting < rows.number:
                self.waiting.appendleft(rows._replace(number=rows.number - fitting))
            self.running += fitting
            self.pages -= fitting * rows.pages
            self._readers.append(_Reader(rows, fitting, rows.own))
        self.peak = max(self.peak, self.running)

    def step(self) -> Stretch:
        """The next pass, and those after it that are alike."""
        steady, sequences = self.left >= self.peak and bool(self.waiting), self.running
        context, decoding = self.stored + self.decoding, self.decoding
        passes, reading, read = self._read()
        self.now += passes
        self.stored += passes * decoding
        for rows, count in read:
            self._begin(rows, count)
        self._end()
        drawn = decoding + sum(count for _, count in read)
        return Stretch(passes, decoding, context, reading, drawn, sequences, steady)

    def _read(self) -> tuple[int, int, list[tuple[Rows, int]]]:
        """How many passes are alike, what each of them reads, and whose prompts end with it."""
        until = self._ends[0][0] - self.now if self._ends else None
        if not self._readers:
            assert until is not None, "a block where nobody reads or decodes"
            return until, 0, []
        room = most = max(1, self.room - self.decoding)
        if (left := self._readers[0].left) > room:
            # A long prompt fills several passes.
            passes = min((left - 1) // room, until or left)
            self._readers[0].left -= passes * room
            return passes, room, []
        ended = list[tuple[Rows, int]]()
        while room and self._readers:
            reader = self._readers[0]
            alone = bool(reader.rows.shared) and not self.readable
            done = min(reader.count, 1 if alone else reader.count, 1 + (room - reader.left) // reader.rows.own)
            if room < reader.left:
                reader.left, room = reader.left - room, 0
                break
            ended.append((reader.rows, done))
            room -= reader.left + (done - 1) * reader.rows.own
            reader.count, reader.left = reader.count - done, reader.rows.own
            if not reader.count:
                self._readers.popleft()
            if alone or (self._readers and self._readers[0].rows.shared and not self.readable):
                break
        self.readable = self.readable or bool(ended)
        return 1, most - room, ended

    def _begin(self, rows: Rows, count: int) -> None:
        """The first token of an answer comes with the end of its prompt."""
        if rows.answer < 2:
            self._leave(rows, count)
            return
        heappush(self._ends, (self.now + rows.answer - 1, count, rows))
        self.decoding += count
        self.stored += count * rows.prompt

    def _end(self) -> None:
        while self._ends and self._ends[0][0] <= self.now:
            _, count, rows = heappop(self._ends)
            self.decoding -= count
            self.stored -= count * (rows.prompt + rows.answer - 1)
            self._leave(rows, count)

    def _leave(self, rows: Rows, count: int) -> None:
        self.running -= count
        self.pages += count * rows.pages
        self.left += count
