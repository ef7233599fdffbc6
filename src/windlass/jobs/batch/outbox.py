"""Brings answers from the journal to the output, in the order asked for, each once."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from windlass.errors import StorageError, UsageError
from windlass.facts.job_settings import INPUT
from windlass.jobs.answers.answer_sink import AnswerSink, Position
from windlass.jobs.batch.journal import Journal, Json

# Rows that are taken from the journal at once, and rows after which the output is made sure of.
_LOT, _SURE_EVERY = 200, 200


class Outbox:
    """What it writes is in the journal already, so that the output can always be made again.

    `open_sink` gives the output at its beginning. `say` is told where it had to be written again. `deliver` and
    `finish` raise StorageError, and go on the next time from where the output is known to be good. With `leave_none`
    nobody comes back for what is left: `finish` writes rows too whose turn has not come.
    """

    def __init__(
        self,
        journal: Journal,
        open_sink: Callable[[], AnswerSink],
        order: str,
        say: Callable[[str], None],
        leave_none: bool = False,
    ) -> None:
        self._journal, self._open, self._by_number, self._say = journal, open_sink, order == INPUT, say
        self._order, self._leave_none = order, leave_none
        self._output: AnswerSink | None = None
        self._at = self._unsure = 0

    def deliver(self) -> None:
        """Writes all that can be written."""
        self._write(self._journal.in_input_order if self._by_number else self._journal.as_finished)

    def _write(self, ready: Callable[[int, int], Sequence[tuple[int, Json]]]) -> None:
        output = self._output or self._resumed()
        try:
            while lot := ready(self._at, _LOT):
                output.append([line for _, line in lot])
                self._at, _ = lot[-1]
                self._unsure += len(lot)
                if self._unsure >= _SURE_EVERY:
                    self._make_sure(output)
        except StorageError:
            self.start_over()
            raise

    def finish(self) -> None:
        """Writes all that can be written, and lets go of it: what was written is on the disk, and the journal knows."""
        self.deliver()
        if self._leave_none and self._by_number:
            self._write(self._journal.finished_after)
        assert self._output is not None
        output, self._output = self._output, None
        output.close()
        self._note(output.position())

    def start_over(self) -> None:
        """Where it goes on is looked up anew."""
        output, self._output = self._output, None
        if output is not None:
            with suppress(StorageError):
                output.close()

    def _resumed(self) -> AnswerSink:
        """The output, cut back to where it is known to be good, or to nothing where that is not there any more."""
        output = self._opened()
        beginning, known = output.position(), self._journal.fact("output")
        position: Position = known["position"] if known is not None and known["order"] == self._order else beginning
        try:
            output.rewind(position)
        except StorageError as reason:
            self._say(f"{reason}; it is written again from the journal")
            position = beginning
            output.rewind(position)
        rows = position["rows"]
        assert isinstance(rows, int)
        self._at = self._journal.nth(rows, self._by_number)
        self._output, self._unsure = output, 0
        return output

    def _opened(self) -> AnswerSink:
        try:
            return self._open()
        except UsageError as error:
            # It could be written before; what is in the way may go again.
            raise StorageError(str(error)) from error

    def _make_sure(self, output: AnswerSink) -> None:
        output.sync()
        self._note(output.position())

    def _note(self, position: Position) -> None:
        self._journal.keep(output={"order": self._order, "position": dict(position)})
        self._unsure = 0
