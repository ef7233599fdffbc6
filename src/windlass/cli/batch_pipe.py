"""A batch with a pipe at one end: it cannot be taken up again, so its journal is gone with it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from windlass.cli.batch_work import BatchWork, all_refused, has_a_good_row, tell_end, warn
from windlass.cli.display import display
from windlass.cli.exits import FAILED
from windlass.errors import StorageError
from windlass.facts.job_identity import JobIdentity
from windlass.jobs.answers.answer_sink import AnswerSink, answer_sink
from windlass.jobs.answers.refusals import only_refusals
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.rows.held_rows import HeldRows
from windlass.jobs.rows.row_source import RowSource


class BatchPipe:
    """The ends of such a batch. What fails once is not tried again: half a row may have gone down the pipe."""

    patient = False

    def __init__(self, work: BatchWork, source: RowSource) -> None:
        self._work = work
        self.source: RowSource = HeldRows(source)
        self._open_sink: Callable[[], AnswerSink] | None = None
        self._journal: Journal | None = None

    def run(self) -> None:
        """Answers all rows, or as many as there is time for."""
        work = self._work
        with display(work.output.quiet) as screen, self._opened_target() as open_sink:
            self._open_sink = open_sink
            if has_a_good_row(self.source):
                try:
                    summary = work.answered(self, screen)
                finally:
                    if self._journal is not None:
                        self._journal.close()
            else:
                summary = all_refused(self.source, open_sink)
            tell_end(summary, screen, work.output.quiet)
        if work.output.json:
            sys.stdout.write(json.dumps({"model": work.model, "output": work.target} | summary.as_dict()) + "\n")
        if not summary.answered:
            raise typer.Exit(FAILED)

    def begin(self, identity: JobIdentity) -> tuple[Journal, Outbox]:
        """A journal that nobody sees."""
        assert self._open_sink is not None
        self._journal = Journal(None)
        return self._journal, Outbox(self._journal, self._open_sink, self._work.job.order, warn, leave_none=True)

    def left(self, journal: Journal) -> list[str]:
        """Only what was answered."""
        rows, target = journal.counts().finished, self._work.target
        word = "row went" if rows == 1 else "rows went"
        return [f"{rows} {word} to {'standard output' if target == '-' else target}"]

    @contextmanager
    def _opened_target(self) -> Iterator[Callable[[], AnswerSink]]:
        """What gives the output once: a pipe cannot be opened again, and what is whole in a file is left as it is."""
        target = self._work.target
        sink = answer_sink(target, self._work.job.overwrite or only_refusals(Path(target)))
        unopened = [sink]

        def once() -> AnswerSink:
            if not unopened:
                raise StorageError(f"{target} was given up; start again")
            return unopened.pop()

        try:
            yield once
        finally:
            sink.close()
