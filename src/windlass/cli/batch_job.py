"""A batch from a file to a file: a job with a journal, which the same command takes up again."""

import json
import os
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import typer

from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.display import Display, display
from windlass.cli.exits import FAILED, INTERRUPTED
from windlass.cli.job_flags import JobFlags
from windlass.cli.job_stop import JobStop
from windlass.cli.late import late
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.cli.timeline_flags import TimelineFlags
from windlass.errors import StorageError, UsageError
from windlass.facts.batch_answer import refusal
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.job_record import JobRecord
from windlass.jobs.answers.answer_sink import answer_sink
from windlass.jobs.answers.refusals import only_refusals
from windlass.jobs.batch.ending import CANCELLED, DONE
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.meter import Meter
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.batch.patience import Patience
from windlass.jobs.batch.place import JobPlace, OpenJob
from windlass.jobs.batch.registry import Registry
from windlass.jobs.question_file import no_rows
from windlass.jobs.rows.row_source import RowSource
from windlass.settings import cache_folder


@dataclass(frozen=True, slots=True)
class BatchJob:
    """The command line of one job: the rows in `source`, which come from `path`, are answered in `target`."""

    model: str
    path: str
    source: RowSource
    target: str
    sampling: SamplingFlags
    output: OutputFlags
    budget: BudgetFlags
    timeline: TimelineFlags
    flags: JobFlags

    def run(self) -> None:
        """Begins it or goes on with it, to its end or until somebody stops it."""
        with display(self.output.quiet) as screen, OpenJob(JobPlace(Path(self.target))) as job:
            anew = self._begins_anew(job)
            if not job.is_begun and not self._has_a_good_row():
                summary = self._refused()
            else:
                with self.timeline.recording(self.model, screen) as trace:
                    summary = self._worked(job, anew, screen, trace)
            screen.close()
            screen.say(summary.lines())
        if self.output.json:
            told = {"model": self.model, "output": self.target, "job": job.place.id} | summary.as_dict()
            sys.stdout.write(json.dumps(told) + "\n")
        if not summary.answered:
            raise typer.Exit(FAILED)

    def _has_a_good_row(self) -> bool:
        """Whether a model is needed at all. Raises UsageError where there is no row."""
        row = None
        for row in self.source.rows():
            if isinstance(row, BatchRow):
                return True
        if row is None:
            raise no_rows(self.source.describe())
        return False

    def _refused(self) -> BatchSummary:
        """All rows with their errors."""
        may_exist = self.flags.overwrite or only_refusals(Path(self.target))
        sink, lines = answer_sink(self.target, may_exist=may_exist), list[int]()
        for row in self.source.rows():
            if isinstance(row, BadRow):
                sink.append([refusal(row)])
                lines.append(row.line)
        sink.close()
        return BatchSummary(len(lines), tuple(lines), None)

    def _begins_anew(self, job: OpenJob) -> bool:
        """Whether what is known of a job is to be dropped once its model is there.

        A job that was begun waits for its disk; a new one would fail at once. Raises UsageError for a file that is
        there and belongs to no job, unless it may be replaced.
        """
        if job.is_begun:
            if self.flags.restart:
                return True
            known = Patience(None, _warn, lambda: False).persist(job.begin)
            return self.flags.overwrite and known.fact("state") == DONE
        self._refuse_strange_folder()
        answer_sink(self.target, may_exist=self.flags.overwrite or only_refusals(Path(self.target))).close()
        return False

    def _refuse_strange_folder(self) -> None:
        folder = Path(self.target)
        if folder.is_dir() and any(entry.suffix != ".parquet" for entry in folder.iterdir()):
            raise UsageError(
                f"{folder} is a folder that holds other files; name a file, as in {folder / 'answers.jsonl'}, or a "
                "folder of its own for answers in Parquet"
            )

    def _worked(self, job: OpenJob, anew: bool, screen: Display, trace: Any) -> BatchSummary:
        meter = Meter(screen.on_progress)
        begin, work, engine_call = late("jobs.batch.begin"), late("jobs.batch.run"), late("jobs.batch.engine_call")
        with opened(self.model, self.budget, meter.on_engine, trace) as llm:
            defaults = self.sampling.applied_to(llm.default_sampling_params)
            identity = begin.identity_of(llm, self.model, self.budget.revision, self._formats(), defaults)
            if anew:
                job.drop()
            journal = job.begin()
            begin.agree(journal, identity)
            self._register(job.place)
            orders = work.Work(
                self.model, self.source, identity, defaults, self.flags.settings, self.sampling.asks_for_length
            )
            outbox = Outbox(journal, partial(answer_sink, self.target, may_exist=True), self.flags.order, _warn)
            with JobStop() as stop:
                doors = work.Doors(screen.say, _warn, lambda: stop.asked, begin.outlook(llm))
                run = work.Run(engine_call.EngineCall(llm), orders, journal, outbox, meter, doors)
                try:
                    ending = run.run()
                except KeyboardInterrupt as interrupt:
                    screen.close()
                    raise self._left(journal, "interrupted") from interrupt
                if ending != DONE:
                    screen.close()
                    raise self._left(journal, "cancelled" if ending == CANCELLED else "interrupted")
            summary: BatchSummary = run.summary()
            return summary

    def _left(self, journal: Journal, word: str) -> typer.Exit:
        """Says how to go on."""
        counts, total = journal.counts(), self.source.count()
        of = "" if total is None else f" of {total}"
        sys.stderr.write(f"{word}: {counts.finished}{of} rows are done\n")
        sys.stderr.write(f"the same command goes on with the others: {_command()}\n")
        return typer.Exit(INTERRUPTED)

    def _formats(self) -> dict[str, object]:
        """What of the flags changes tokens."""
        return {
            "quantization": self.budget.quantization,
            "kv_cache_dtype": self.budget.kv_cache_dtype,
            "seed": self.budget.seed,
        }

    def _register(self, place: JobPlace) -> None:
        record = JobRecord(
            id=place.id,
            model=self.model,
            input=str(Path(self.path).absolute()),
            output=str(Path(self.target).absolute()),
            journal=str(place.journal.absolute()),
            lock=str(place.lock.absolute()),
            command=_command(),
            directory=os.getcwd(),
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
        )
        try:
            Registry(cache_folder()).add(record)
        except StorageError as error:
            _warn(f"warning: {error}; `windlass jobs` will not show this job")


def _warn(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _command() -> str:
    """What goes on with the job: to begin anew is not said twice."""
    return shlex.join(["windlass", *(word for word in sys.argv[1:] if word != "--restart")])
