"""What every batch is, wherever its rows come from and its answers go: rows asked of an opened model."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import typer

from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.display import Display
from windlass.cli.exits import INTERRUPTED
from windlass.cli.job_flags import JobFlags
from windlass.cli.job_stop import JobStop
from windlass.cli.late import late
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.prompt_flags import PromptFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.cli.timeline_flags import TimelineFlags
from windlass.facts.batch_answer import refusal
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.file_format import is_guessed
from windlass.facts.job_identity import JobIdentity
from windlass.jobs.answers.answer_sink import AnswerSink
from windlass.jobs.batch.ending import CANCELLED, DONE
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.meter import Meter
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.question_file import no_rows
from windlass.jobs.rows.row_source import RowSource


class Ends(Protocol):
    """Both ends of a batch. `patient`: what a disk refuses is tried again."""

    patient: bool
    source: RowSource

    def begin(self, identity: JobIdentity) -> tuple[Journal, Outbox]:
        """The model is open. Raises UsageError where a job that goes on is not the same, StorageError."""
        ...

    def left(self, journal: Journal) -> list[str]:
        """What there is of a batch that was stopped, and how to go on."""
        ...


@dataclass(frozen=True, slots=True)
class BatchWork:
    """One command line: rows in the file called `path`, answers in `target`."""

    model: str
    path: str
    target: str
    sampling: SamplingFlags
    output: OutputFlags
    job: JobFlags
    budget: BudgetFlags
    timeline: TimelineFlags
    prompts: PromptFlags

    def answered(self, ends: Ends, screen: Display) -> BatchSummary:
        """Opens the model and asks all that is to be asked. Raises typer.Exit where somebody stops it."""
        if is_guessed(self.target):
            screen.say([f"output   {self.target} gets JSON lines, whatever its name; call it .jsonl to say so"])
        with self.timeline.recording(self.model, screen) as trace:
            return self._answered(ends, screen, trace)

    def _answered(self, ends: Ends, screen: Display, trace: Any) -> BatchSummary:
        meter, begin = Meter(screen.on_progress), late("jobs.batch.begin")
        with opened(self.model, self.budget, meter.on_engine, trace) as llm:
            defaults = self.sampling.applied_to(llm.default_sampling_params)
            identity = begin.identity_of(llm, self.model, self.budget.revision, self.formats(), defaults, self._given())
            journal, outbox = ends.begin(identity)
            work, engine_call = late("jobs.batch.run"), late("jobs.batch.engine_call")
            orders = work.Work(
                self.model, ends.source, identity, defaults, self.job.settings, self.sampling.asks_for_length,
                patient=ends.patient,
            )  # fmt: skip
            with JobStop() as stop:
                doors = work.Doors(screen.say, warn, lambda: stop.asked, begin.outlook(llm))
                run = work.Run(engine_call.EngineCall(llm), orders, journal, outbox, meter, doors)
                try:
                    ending = run.run()
                except KeyboardInterrupt as interrupt:
                    raise _left(screen, "interrupted", ends.left(journal)) from interrupt
            if ending != DONE:
                raise _left(screen, "cancelled" if ending == CANCELLED else "interrupted", ends.left(journal))
            summary: BatchSummary = run.summary()
            return summary

    def formats(self) -> dict[str, object]:
        """What of the flags changes tokens, beside those of the model's own files."""
        return {
            "quantization": self.budget.quantization,
            "kv_cache_dtype": self.budget.kv_cache_dtype,
            "seed": self.budget.seed,
        }

    def _given(self) -> set[str]:
        """The values that are what a flag says, or what it says by default, and not the model's own."""
        chosen = {"dtype"} if self.budget.dtype != "auto" else set[str]()
        if self.budget.max_model_len is not None:
            chosen.add("max_model_len")
        return chosen | self.formats().keys() | self.sampling.given().keys()


def has_a_good_row(source: RowSource) -> bool:
    """Whether a model is needed at all. Raises UsageError where there is no row."""
    row = None
    for row in source.rows():
        if isinstance(row, BatchRow):
            return True
    if row is None:
        raise no_rows(source.describe())
    return False


def all_refused(source: RowSource, open_sink: Callable[[], AnswerSink]) -> BatchSummary:
    """Writes the errors of rows of which none is good."""
    sink, lines = open_sink(), list[int]()
    for row in source.rows():
        if isinstance(row, BadRow):
            sink.append([refusal(row)])
            lines.append(row.line)
    sink.close()
    return BatchSummary(len(lines), tuple(lines), None)


def tell_end(summary: BatchSummary, screen: Display, quiet: bool) -> None:
    """How it ended, for people; where no row has an answer also to who wants it quiet, since that is a failure."""
    screen.close()
    if quiet and not summary.answered:
        warn(summary.lines()[0])
    screen.say(summary.lines())


def warn(line: str) -> None:
    """A line that matters, also where all else is quiet."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _left(screen: Display, word: str, lines: list[str]) -> typer.Exit:
    screen.close()
    first, *rest = lines
    sys.stderr.write("".join(f"{line}\n" for line in (f"{word}: {first}", *rest)))
    return typer.Exit(INTERRUPTED)
