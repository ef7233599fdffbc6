"""A batch from a file to a file: a job with a journal, which the same command takes up again."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import typer

from windlass.cli.batch_work import BatchWork, all_refused, has_a_good_row, tell_end, warn
from windlass.cli.display import display
from windlass.cli.exits import FAILED
from windlass.cli.late import late
from windlass.errors import StorageError, UsageError
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.file_format import row_format
from windlass.facts.job_identity import JobIdentity
from windlass.facts.job_record import JobRecord
from windlass.jobs.answers.answer_sink import answer_sink
from windlass.jobs.answers.refusals import only_refusals
from windlass.jobs.batch.ending import DONE
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.batch.patience import Patience
from windlass.jobs.batch.place import JobPlace, OpenJob
from windlass.jobs.batch.receipt import Receipt, content_of
from windlass.jobs.batch.registry import Registry
from windlass.jobs.rows.row_source import RowSource
from windlass.settings import cache_folder


class BatchJob:
    """The ends of such a batch, and what is known of it on the disk."""

    patient = True

    def __init__(self, work: BatchWork, source: RowSource) -> None:
        self._work, self.source = work, source
        self._target = Path(work.target)
        self._job = OpenJob(JobPlace(self._target))
        self._anew = False
        self._identity: JobIdentity | None = None

    def run(self) -> None:
        """Begins it or goes on with it, to its end or until somebody stops it."""
        work = self._work
        with display(work.output.quiet) as screen, self._job:
            self._anew = self._begins_anew()
            if not self._job.is_begun and not has_a_good_row(self.source):
                may_exist = work.job.overwrite or only_refusals(self._target)
                summary = all_refused(self.source, partial(answer_sink, work.target, may_exist))
            elif (known := self._known_done()) is not None:
                summary = known
            else:
                before = content_of(work.path, read=False)
                summary = work.answered(self, screen)
                self._note_done(before)
            tell_end(summary, screen, work.output.quiet)
        if work.output.json:
            told = {"model": work.model, "output": work.target, "job": self._job.place.id} | summary.as_dict()
            sys.stdout.write(json.dumps(told) + "\n")
        if not summary.answered:
            raise typer.Exit(FAILED)

    def begin(self, identity: JobIdentity) -> tuple[Journal, Outbox]:
        """The journal, made sure that it is of the same job. Raises UsageError, StorageError."""
        if self._anew:
            self._job.drop()
        journal = self._job.begin()
        late("jobs.batch.begin").agree(journal, identity)
        self._identity = identity
        self._register()
        return journal, self._outbox(journal)

    def left(self, journal: Journal) -> list[str]:
        """How far it has come, and what goes on with it."""
        counts, total = journal.counts(), self.source.count()
        of = "" if total is None else f" of {total}"
        return [f"{counts.finished}{of} rows are done", f"the same command goes on with the others: {_command()}"]

    def _begins_anew(self) -> bool:
        """Whether what is known of a job is to be dropped once its model is there.

        A job that was begun waits for its disk; a new one would fail at once. Raises UsageError for a file that is
        there and belongs to no job, unless it may be replaced.
        """
        flags = self._work.job
        if self._job.is_begun:
            if flags.restart:
                return True
            known = Patience(None, warn, lambda: False).persist(self._job.begin)
            return flags.overwrite and known.fact("state") == DONE
        self._refuse_strange_folder()
        answer_sink(self._work.target, may_exist=flags.overwrite or only_refusals(self._target)).close()
        return False

    def _refuse_strange_folder(self) -> None:
        folder = self._target
        if folder.is_dir() and any(entry.suffix != ".parquet" for entry in folder.iterdir()):
            raise UsageError(
                f"{folder} is a folder that holds other files; name a file, as in {folder / 'answers.jsonl'}, or a "
                "folder of its own for answers in Parquet"
            )

    def _known_done(self) -> BatchSummary | None:
        """Of a job that is done already, with nothing changed since: then there is nothing to open a model for."""
        if self._anew or not self._job.is_begun:
            return None
        journal = self._job.begin()
        kept = journal.fact("receipt") if journal.fact("state") == DONE else None
        counts, most = journal.counts(), self._work.job.max_errors
        if kept is None or (most is not None and counts.refused > most):
            return None
        files = late("jobs.batch.model_files").files_of(self._work.model, self._work.budget.revision)
        if files is None or kept != self._receipt(files).as_dict():
            return None
        try:
            self._outbox(journal).finish()
        except StorageError:
            return None  # a job at work waits for its disk, and says so
        self._register()
        return BatchSummary(counts.finished, journal.refused(), None)

    def _note_done(self, before: str) -> None:
        """Keeps what the job was done with, unless its input was written to meanwhile."""
        assert self._identity is not None
        with suppress(StorageError):  # then the model is opened the next time, and nothing else is lost
            receipt = self._receipt(self._identity.files)
            if content_of(self._work.path, read=False) == before:
                self._job.begin().keep(receipt=receipt.as_dict())

    def _receipt(self, files: Mapping[str, str]) -> Receipt:
        work, budget = self._work, self._work.budget
        asked = {"dtype": budget.dtype, "max_model_len": budget.max_model_len, "device": budget.device}
        choices = work.formats() | asked | work.sampling.given() | work.prompts.told()
        return Receipt(dict(files), choices, row_format(work.path).value, content_of(work.path))

    def _outbox(self, journal: Journal) -> Outbox:
        work = self._work
        return Outbox(journal, partial(answer_sink, work.target, may_exist=True), work.job.order, warn)

    def _register(self) -> None:
        place = self._job.place
        record = JobRecord(
            id=place.id,
            model=self._work.model,
            input=str(Path(self._work.path).absolute()),
            output=str(self._target.absolute()),
            journal=str(place.journal.absolute()),
            lock=str(place.lock.absolute()),
            command=_command(),
            directory=os.getcwd(),
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
        )
        try:
            Registry(cache_folder()).add(record)
        except StorageError as error:
            warn(f"warning: {error}; `windlass jobs` will not show this job")


def _command() -> str:
    """What goes on with the job: to begin anew is not said twice."""
    return shlex.join(["windlass", *(word for word in sys.argv[1:] if word != "--restart")])
