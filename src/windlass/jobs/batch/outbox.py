"""Brings answers from the journal to the output, in the order asked for, each once."""

from collections.abc import Callable

from windlass.errors import StorageError
from windlass.facts.job_settings import INPUT
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.output import Output

# Rows that are taken from the journal at once, and rows after which the output is made sure of.
_LOT, _SURE_EVERY = 200, 200


class Outbox:
    """What it writes is in the journal already, so that the output can always be made again.

    `say` is told where it had to be. Methods raise StorageError; `resume` comes before all, and after each of these.
    """

    def __init__(self, journal: Journal, output: Output, order: str, say: Callable[[str], None]) -> None:
        self._journal, self._output, self._order, self._say = journal, output, order, say
        self._at = self.rows = self._unsure = 0

    def resume(self) -> None:
        """Cuts the output back to where it is known to be good, or to nothing where that is not there any more."""
        known = self._journal.fact("output")
        if known is None or known["order"] != self._order:
            self.start_over()
            return
        try:
            self._output.rewind(known["position"])
        except StorageError as reason:
            self._say(f"{reason}; it is written again from the journal")
            self.start_over()
        else:
            self._at, self.rows, self._unsure = known["at"], known["rows"], 0

    def start_over(self) -> None:
        """The output will be written from its first row."""
        self._output.rewind(None)
        self._at = self.rows = self._unsure = 0

    def deliver(self) -> None:
        """Writes all that can be written."""
        ready = self._journal.in_input_order if self._order == INPUT else self._journal.as_finished
        while lot := ready(self._at, _LOT):
            self._output.append([line for _, line in lot])
            self._at, _ = lot[-1]
            self.rows, self._unsure = self.rows + len(lot), self._unsure + len(lot)
            if self._unsure >= _SURE_EVERY:
                self.make_sure()

    def make_sure(self) -> None:
        """What was written is on the disk, and the journal knows."""
        self._output.sync()
        known = {"order": self._order, "at": self._at, "rows": self.rows, "position": dict(self._output.position())}
        self._journal.keep(output=known)
        self._unsure = 0
