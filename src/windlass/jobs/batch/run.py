"""The work on a job from its start, or from where it was left, until it is done or somebody stops it.

An answer goes to the journal first, and is on the disk there before it is counted or written to the output. Whatever
a disk refuses on the way is tried again after a while.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from windlass.errors import JobError, StorageError, UsageError
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.job_identity import JobIdentity
from windlass.facts.job_progress import JobProgress
from windlass.facts.job_settings import INPUT, JobSettings
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.batch.answerer import Answerer
from windlass.jobs.batch.ending import CANCEL, CANCELLED, DONE, RUNNING, STOPPED
from windlass.jobs.batch.feed import Feed
from windlass.jobs.batch.intake import WINDOW, Intake
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.ledger import Ledger
from windlass.jobs.batch.meter import Meter
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.batch.patience import Patience
from windlass.jobs.rows.row_source import RowSource


@dataclass(frozen=True, slots=True)
class Work:
    """Rows of `source`, to be asked of the model named `model`, with `defaults` where they say nothing.

    `length_asked`: somebody wants to know when an answer cannot be as long as the defaults say. `window`: rows that are
    read at once. What a disk refuses is tried again where the job is `patient`; `wait_scale` multiplies every wait.
    """

    model: str
    source: RowSource
    identity: JobIdentity
    defaults: SamplingParams
    settings: JobSettings = JobSettings()
    length_asked: bool = False
    window: int = WINDOW
    wait_scale: float = 1.0
    patient: bool = True


@dataclass(frozen=True, slots=True)
class Doors:
    """Who is told and asked meanwhile: `say` lines of interest, `warn` a line that matters, `stopped`: end soon?

    `forecast` gives seconds for a workload, or None.
    """

    say: Callable[[list[str]], None]
    warn: Callable[[str], None]
    stopped: Callable[[], bool]
    forecast: Callable[[Workload], float | None] = lambda workload: None


class Run:
    """One process's work on a job."""

    def __init__(
        self, answerer: Answerer, work: Work, journal: Journal, outbox: Outbox, meter: Meter, doors: Doors
    ) -> None:
        self._answerer, self._work, self._journal, self._outbox = answerer, work, journal, outbox
        self._meter, self._doors = meter, doors
        self._ledger = Ledger(journal, outbox, meter, work.model, work.settings.checkpoint_every)
        self._patience = Patience(journal, doors.warn, self._is_to_end, work.wait_scale, work.patient)
        self._workload: Workload | None = None
        self._intake: Intake | None = None
        self._cancelled = self._told_cut = self._told_waiting = False

    def run(self) -> str:
        """Works until the end, which it returns: DONE, STOPPED or CANCELLED. What was answered is in the output then.

        Raises UsageError where the input is not what it was, JobError where more rows are refused than may be, and
        StorageError where the job is not patient.
        """
        before = self._journal.fact("state")
        self._patience.persist(partial(self._journal.keep, state=RUNNING, wish=None))
        counts = self._journal.counts()
        self._meter.begin(counts.finished, counts.refused, self._work.source.count())
        ending = STOPPED
        try:
            if self._to_the_end():
                ending = DONE
            elif self._cancelled:
                ending = CANCELLED
        except UsageError:
            # The input is not what it was: a job that was done before is so still.
            ending = DONE if before == DONE else STOPPED
            raise
        finally:
            # Whatever ends it, the last answers are whole; nobody waits for a disk now.
            with suppress(StorageError):
                self._ledger.write(finish=True)
                self._journal.keep(state=ending, wish=None, progress=self._progress().as_dict())
        self._check_errors()
        return ending

    def summary(self) -> BatchSummary:
        """Of the whole job, with what this process measured."""
        counts = self._journal.counts()
        return BatchSummary(counts.finished, self._journal.refused(), self._answerer.report if self._workload else None)

    def _progress(self) -> JobProgress:
        """As it is to be kept: where this process generated nothing, the speed of the last one that did."""
        now = self._meter.progress
        if now.tokens:
            return now
        before = JobProgress.from_dict(self._journal.fact("progress") or {})
        left = before.left if now.rows == before.rows else now.left
        return replace(before, rows=now.rows, refused=now.refused, total=now.total, left=left)

    def _to_the_end(self) -> bool:
        """Whether it came there; what a disk refuses meanwhile, the model's disk too, is tried again."""
        waits, broke_off = self._patience.waits(), False
        while True:
            rows = self._meter.progress.rows
            try:
                if broke_off:
                    self._answerer.broken_off()
                return self._over_the_input()
            except StorageError as error:
                if self._meter.progress.rows > rows:
                    waits.reset()
                if not self._ends() and not self._patience.pause(error, waits) and not self._ends():
                    raise
                if self._ends():
                    return False
                broke_off = True

    def _over_the_input(self) -> bool:
        """Asks all that is still to be asked. Raises StorageError, and can be called again."""
        self._ledger.forget()
        self._patience.persist(self._ledger.write)
        work, longest = self._work, self._answerer.max_model_len
        self._intake = intake = Intake(
            self._answerer, work.source, self._journal, work.identity, work.defaults, self._patience, self._refused,
            self._reopened, work.settings.max_errors, work.window,
        )  # fmt: skip
        feed = Feed(intake.windows(), self._meter.progress.total, longest, self._ends)
        while feed.skip_empty():
            workload = self._made_ready(feed, intake)
            asks, stream = self._ledger.ask(feed.within(workload)), work.settings.checkpoint_every is not None
            for number, output in self._answerer.answered(asks, workload, stream, self._pass_is_over):
                self._ledger.take(number, output)
        self._patience.persist(partial(self._ledger.write, finish=True))
        return not self._ends()

    def _made_ready(self, feed: Feed, intake: Intake) -> Workload:
        """Has the model loaded for what comes next."""
        self._tell_cut(intake)
        self._tell_waiting(feed)
        workload = feed.workload(self._workload)
        if workload != self._workload:
            self._doors.say(list(self._answerer.make_ready(workload)))
            self._meter.expect(self._doors.forecast(replace(workload, num_prompts=self._left_of(workload))))
        self._workload = workload
        return workload

    def _left_of(self, workload: Workload) -> int:
        """Sequences of a workload for the whole job that are still to be had."""
        now = self._meter.progress
        left = 1.0 if not now.total else (now.total - now.rows) / now.total
        return max(1, round(workload.num_prompts * left))

    def _pass_is_over(self) -> bool:
        """Keeps what came of it; whether there shall be no other."""
        try:
            self._patience.persist(self._ledger.write)
        except StorageError:
            if not self._is_to_end():
                raise
            return True  # stopped while it waited; the last try is that of run
        return self._is_to_end()

    def _is_to_end(self) -> bool:
        """Asks the journal too whether somebody wishes it."""
        with suppress(StorageError):
            self._cancelled = self._cancelled or self._journal.fact("wish") == CANCEL
        return self._ends()

    def _ends(self) -> bool:
        return self._cancelled or self._doors.stopped() or self._too_many_errors()

    def _too_many_errors(self) -> bool:
        return self._intake is not None and self._intake.too_bad

    def _check_errors(self) -> None:
        if self._too_many_errors():
            refused = self._journal.refused()
            raise JobError(
                f"{len(refused)} rows of {self._work.source.describe()} have an error, more than --max-errors "
                f"{self._work.settings.max_errors}, last row {refused[-1]}: correct them, or raise --max-errors, "
                "and start again"
            )

    def _refused(self, rows: int) -> None:
        self._meter.finished(0, rows, 0)

    def _reopened(self, rows: int) -> None:
        self._meter.finished(0, -rows, 0)
        self._outbox.start_over()

    def _tell_waiting(self, feed: Feed) -> None:
        """Once: why the output may be empty for long while rows are answered."""
        numbers = [ask.number for ask in feed.left or ()]
        if self._told_waiting or self._work.settings.order != INPUT or numbers == sorted(numbers):
            return
        self._told_waiting = True
        self._doors.say([
            "order    as the input, and the longest answers are asked first: a row is written when all before it are "
            "done; --order finished writes each as it ends",
        ])  # fmt: skip

    def _tell_cut(self, intake: Intake) -> None:
        """Once: what holds for one row mostly holds for the next."""
        if intake.cut is None or self._told_cut or not self._work.length_asked:
            return
        self._told_cut = True
        self._doors.warn(
            f"warning: --max-tokens {self._work.defaults.max_tokens} is more than the prompt of row "
            f"{intake.cut.row.line}, {len(intake.cut.prompt_token_ids)} tokens, leaves of the "
            f"{self._answerer.max_model_len} this model takes; such answers end there at the latest"
        )
