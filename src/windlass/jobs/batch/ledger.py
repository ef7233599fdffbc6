"""Answers on their way from the engine into the journal, and from there to the output."""

import time
from collections.abc import Iterator
from dataclasses import replace

from windlass.facts.batch_answer import answer
from windlass.facts.batch_row import BatchRow
from windlass.facts.completion import RequestOutput
from windlass.jobs.batch.ask import Ask
from windlass.jobs.batch.journal import Finished, Journal, Tokens
from windlass.jobs.batch.meter import Meter
from windlass.jobs.batch.outbox import Outbox


class Ledger:
    """`model` is what the answers name; `every`: new tokens after which an answer in progress is kept, None: never."""

    def __init__(self, journal: Journal, outbox: Outbox, meter: Meter, model: str, every: int | None) -> None:
        self._journal, self._outbox, self._meter = journal, outbox, meter
        self._model, self._every, self._created = model, every, int(time.time())
        self._asked: dict[int, BatchRow] = {}
        self._begun_at: dict[int, int] = {}
        self._kept_at: dict[int, int] = {}
        self._finished: dict[int, tuple[Finished, int]] = {}
        self._begun: dict[int, Tokens] = {}

    def ask(self, asks: Iterator[Ask]) -> Iterator[Ask]:
        """The same, noted as they go by."""
        for ask in asks:
            self._asked[ask.number] = ask.question.row
            self._kept_at[ask.number] = self._begun_at[ask.number] = sum(map(len, ask.begun))
            yield ask

    def forget(self) -> None:
        """The call was broken off; what was not finished will be asked again."""
        self._asked.clear()
        self._begun_at.clear()
        self._kept_at.clear()

    def take(self, number: int, output: RequestOutput) -> None:
        """An output of the engine, finished or not; `write` keeps it. Log probabilities are never kept half."""
        tokens = tuple(choice.token_ids for choice in output.outputs)
        count = sum(map(len, tokens))
        if output.finished:
            line = answer(self._asked.pop(number), output, self._model, self._created)
            self._finished[number] = Finished(number, line), count - self._begun_at.pop(number)
            self._kept_at.pop(number)
            self._begun.pop(number, None)
        elif self._every and count - self._kept_at[number] >= self._every * len(tokens) and not _has_logprobs(output):
            self._kept_at[number] = count
            self._begun[number] = tokens

    def write(self, finish: bool = False) -> None:
        """Everything taken is on the disk in the journal, then what its turn has come in the output.

        With `finish` it is on the disk there too. Raises StorageError; nothing is lost, and it may be called again.
        """
        if self._finished or self._begun:
            rows = [row for row, _ in self._finished.values()]
            tokens = sum(count for _, count in self._finished.values())
            now = self._meter.progress
            then = replace(now, rows=now.rows + len(rows), tokens=now.tokens + tokens)
            self._journal.finish(rows, self._begun, progress=then.as_dict())
            self._finished.clear()
            self._begun.clear()
            self._meter.finished(len(rows), 0, tokens)
        if finish:
            self._outbox.finish()
        else:
            self._outbox.deliver()


def _has_logprobs(output: RequestOutput) -> bool:
    return any(choice.logprobs is not None for choice in output.outputs)
