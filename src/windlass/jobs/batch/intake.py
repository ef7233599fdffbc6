"""Which rows of the input are still to be asked: read a window at a time, checked by the journal, and put in order.

No more than a window is held in memory, whatever the size of the input.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from itertools import islice

from windlass.errors import StorageError, UsageError
from windlass.facts.batch_answer import refusal
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.job_identity import JobIdentity
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.batch.answerer import Answerer
from windlass.jobs.batch.ask import Ask, Question
from windlass.jobs.batch.journal import Entry, Finished, Journal, Tokens
from windlass.jobs.batch.patience import Patience
from windlass.jobs.batch.question import question
from windlass.jobs.batch.schema import PENDING, REFUSED
from windlass.jobs.question_file import Row
from windlass.jobs.rows.row_source import RowSource
from windlass.planner.row_order import row_order

WINDOW = 2000
"""Rows that are read at once."""


class Intake:
    """Reads the input once. What its disk or the journal's refuses is tried again with `patience`.

    `on_refused` hears how many rows were refused, `on_reopened` how many of these have been corrected since. Behind the
    row with which more than `max_errors` are bad it ends, and is `too_bad`.
    """

    def __init__(
        self,
        answerer: Answerer,
        source: RowSource,
        journal: Journal,
        identity: JobIdentity,
        defaults: SamplingParams,
        patience: Patience,
        on_refused: Callable[[int], None],
        on_reopened: Callable[[int], None],
        max_errors: int | None,
        window: int = WINDOW,
    ) -> None:
        self._answerer, self._source, self._journal = answerer, source, journal
        self._identity, self._defaults, self._patience = identity, defaults, patience
        self._on_refused, self._on_reopened = on_refused, on_reopened
        self._max_errors, self._window = max_errors, window
        self._bad = 0
        self.cut: Question | None = None

    @property
    def too_bad(self) -> bool:
        """Whether more rows are bad, of those gone over so far, than may be."""
        return self._is_too_bad(0)

    def windows(self) -> Iterator[list[Ask]]:
        """What is to be asked, window by window; rows that cannot be asked are in the journal by then.

        Keeps in `cut` the first question whose answer may not become as long as the defaults ask. Raises UsageError
        where the input is not what it was, StorageError where it cannot be read.
        """
        last, rows = 0, self._rows_after(0)
        while lot := list(islice(rows, self._window)):
            yield self._patience.persist(partial(self._asked, lot))
            if self.too_bad:
                return
            last = lot[-1].line
        known = self._journal.last_number()
        if known > last:
            raise UsageError(
                f"the input changed: {self._source.describe()} ends at row {last}, it had a row {known} when the job "
                "was at work before; bring the rows back, or pass --restart to begin anew"
            )

    def _rows_after(self, last: int) -> Iterator[Row]:
        """The rows behind a line. A read that fails is tried again from there: it is none of the model's business."""
        waits = self._patience.waits()
        while True:
            try:
                for row in self._source.rows():
                    if row.line > last:
                        yield row
                        last = row.line
                        waits.reset()
                return
            except StorageError as error:
                if not self._source.repeatable or not self._patience.pause(error, waits):
                    raise

    def _asked(self, lot: list[Row]) -> list[Ask]:
        known = self._journal.entries(lot[0].line, lot[-1].line)
        keys = {row.line: self._identity.row_key(row) for row in lot}
        fresh = {row.line for row in lot if self._is_fresh(row, known.get(row.line), keys[row.line])}
        begun = {entry.number: entry.tokens for entry in known.values() if entry.state == PENDING}
        judged, bad = self._judged(lot, fresh | begun.keys(), known)
        entered = [(row.line, _custom_id(row), keys[row.line]) for row, _ in judged if row.line in fresh]
        owners = self._journal.enter(entered)
        if reopened := sum(number in known for number, _, _ in entered):
            self._on_reopened(reopened)
        due = [_named_twice(row, owners) or found for row, found in judged]
        self._refuse([found for found in due if isinstance(found, BadRow)])
        self._bad += bad + len(owners)
        return self._ordered([found for found in due if isinstance(found, Question)], begun)

    def _judged(
        self, lot: list[Row], due: Set[int], known: Mapping[int, Entry]
    ) -> tuple[list[tuple[Row, Question | BadRow]], int]:
        """The due ones of some rows and what each comes to, and how many are bad of all.

        Nothing is looked at behind the row with which too many are.
        """
        judged, bad = list[tuple[Row, Question | BadRow]](), 0
        for row in lot:
            if row.line in due:
                found = question(self._answerer, row, self._defaults) if isinstance(row, BatchRow) else row
                judged.append((row, found))
                bad += isinstance(found, BadRow)
            else:
                bad += known[row.line].state == REFUSED
            if self._is_too_bad(bad):
                break
        return judged, bad

    def _is_too_bad(self, more: int) -> bool:
        return self._max_errors is not None and self._bad + more > self._max_errors

    def _ordered(self, questions: list[Question], begun: Mapping[int, Tokens]) -> list[Ask]:
        self.cut = self.cut or next((item for item in questions if item.cut), None)
        order = row_order(
            [item.prompt_token_ids for item in questions], [item.params.max_tokens or 0 for item in questions]
        )
        return [Ask(questions[place], begun.get(questions[place].row.line, ())) for place in order]

    def _is_fresh(self, row: Row, entry: Entry | None, key: bytes) -> bool:
        """Whether a row is to be entered: new, or corrected after it was refused. Raises UsageError for another row."""
        if entry is None:
            return True
        if entry.key == key:
            return False
        if entry.state == REFUSED:
            return True
        raise UsageError(
            f"row {row.line} of the input changed: {self._source.describe()} is not what it was when the job began; "
            "bring the row back, or pass --restart to begin anew"
        )

    def _refuse(self, bad: list[BadRow]) -> None:
        if bad:
            self._journal.finish([Finished(row.line, refusal(row), refused=True) for row in bad])
            self._on_refused(len(bad))


def _custom_id(row: Row) -> str | None:
    return row.custom_id if isinstance(row, BatchRow) else None


def _named_twice(row: Row, owners: dict[int, int]) -> BadRow | None:
    if row.line not in owners:
        return None
    return BadRow(row.line, row.custom_id, f"custom_id {row.custom_id!r} is that of line {owners[row.line]} too")
