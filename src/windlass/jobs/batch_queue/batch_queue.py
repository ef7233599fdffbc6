"""Takes batches, works on one after the other, and remembers all of it over a restart."""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from windlass.errors import InternalError, NotReady, StorageError, UsageError, WindlassError
from windlass.facts.job_identity import JobIdentity
from windlass.facts.job_progress import JobProgress
from windlass.facts.job_settings import FINISHED, JobSettings
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.answers.answer_sink import answer_sink
from windlass.jobs.batch.answerer import Answerer
from windlass.jobs.batch.begin import agree
from windlass.jobs.batch.ending import DONE
from windlass.jobs.batch.lock import JobLock, holder
from windlass.jobs.batch.meter import Meter
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.batch.place import JobPlace, OpenJob
from windlass.jobs.batch.run import Doors, Run, Work
from windlass.jobs.batch_queue.batch_record import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    FINALIZING,
    IN_PROGRESS,
    VALIDATING,
    BatchRecord,
    Status,
)
from windlass.jobs.batch_queue.file_store import FileStore
from windlass.jobs.batch_queue.new_id import new_id
from windlass.jobs.batch_queue.split_answers import split_answers
from windlass.jobs.batch_queue.whole_json import made_folder, read_all, write_json
from windlass.jobs.rows.jsonl_rows import JsonlRows
from windlass.jobs.service.caught import Caught

LOG = logging.getLogger("windlass")
_SETTINGS = JobSettings(order=FINISHED)
"""An answer is there to be fetched as soon as it is given, though a batch is cancelled in the middle."""
_ATTEMPT_AGAIN = 5.0
"""Seconds after a disk refused what the queue itself wrote."""
_MOST_BUGS = 3
"""So often a bug may break off a batch: another question may have asked for one, but not for every one."""


class BatchQueue:
    """`folder` holds all of it. `identity` is that of the model which answers, with `defaults` where rows say nothing.

    May be asked from any thread; the work is done in one of its own, from `start` to `close`. Raises StorageError.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        answerer: Answerer,
        identity: JobIdentity,
        defaults: SamplingParams,
        available: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = made_folder(folder / "batches")
        self._alone = ExitStack()
        self._alone.enter_context(_only_one(folder))
        self.files = FileStore(folder / "files")
        self._model, self._answerer, self._identity, self._defaults = model, answerer, identity, defaults
        self._available = available
        self._records = {record.id: record for record in map(BatchRecord.from_dict, read_all(self._folder))}
        self._changed = threading.Condition()
        self._closed = False
        self._working_on: str | None = None
        self._bugs: Counter[str] = Counter()
        self._meter: Meter | None = None
        self._thread = threading.Thread(target=self._run, name="windlass-batches", daemon=True)

    def start(self) -> None:
        """Goes on with what was left, oldest first."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the pass in flight; what is not done is gone on with at the next start."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._alone.close()

    def create(
        self, endpoint: str, input_file_id: str, window: str = "24h", metadata: dict[str, str] | None = None
    ) -> BatchRecord:
        """Takes a batch over a file that there is."""
        record = BatchRecord(new_id("batch_"), endpoint, input_file_id, int(time.time()), window, metadata=metadata)
        with self._changed:
            self._keep(record)
            self._changed.notify_all()
        return record

    def get(self, number: str) -> BatchRecord | None:
        """The batch of this id as it stands, if there is one."""
        with self._changed:
            record = self._records.get(number)
            return None if record is None else self._now(record)

    def all(self) -> list[BatchRecord]:
        """The latest first."""
        with self._changed:
            records = sorted(self._records.values(), key=lambda record: (record.created, record.id), reverse=True)
            return [self._now(record) for record in records]

    def cancel(self, number: str) -> BatchRecord:
        """Ends a batch that is open, after the pass in flight; what was answered is kept."""
        with self._changed:
            record = self._records[number]
            if record.is_open and record.status != CANCELLING:
                self._keep(_at(record, CANCELLING))
                self._changed.notify_all()
            return self._now(self._records[number])

    def uses(self, file_id: str) -> bool:
        """Whether an open batch needs a file still."""
        with self._changed:
            return any(record.is_open and record.input_file_id == file_id for record in self._records.values())

    def told(self) -> list[dict[str, Any]]:
        """Every batch for whoever watches, the latest first."""
        return [self._told(record) for record in self.all()]

    def _told(self, record: BatchRecord) -> dict[str, Any]:
        progress = self._progress(record)
        return {
            "id": record.id,
            "status": record.status,
            "total": record.total,
            "completed": record.completed,
            "failed": record.failed,
            "tokens_per_second": progress.rate,
            "seconds_left": progress.left if record.is_open else None,
            "input_file_id": record.input_file_id,
            "output_file_id": record.output_file_id,
            "error_file_id": record.error_file_id,
        }

    def _progress(self, record: BatchRecord) -> JobProgress:
        meter = self._meter
        return meter.progress if meter is not None and self._working_on == record.id else JobProgress()

    def _now(self, record: BatchRecord) -> BatchRecord:
        """With the rows that were finished since it was kept."""
        now = self._progress(record)
        if not now.rows:
            return record
        total = now.total or record.total
        return replace(record, total=total, completed=now.rows - now.refused, failed=now.refused)

    def _keep(self, record: BatchRecord) -> None:
        write_json(self._folder / f"{record.id}.json", record.as_dict())
        self._records[record.id] = record

    def _run(self) -> None:
        while (number := self._next()) is not None:
            with Caught() as caught:
                self._work(number)
            if caught.error is not None and not self._passes(number, caught.error):
                reason = self._reason(number, caught.error)
                with Caught() as caught:
                    self._fail(number, reason)
            if caught.error is not None:
                LOG.warning("batch %s waits: %s", number, caught.error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, _ATTEMPT_AGAIN)
            with self._changed:
                self._working_on = self._meter = None

    def _passes(self, number: str, error: Exception) -> bool:
        """Whether to go on with a batch later: a disk may recover, a model be loaded, and a bug be another's."""
        if isinstance(error, InternalError):
            self._bugs[number] += 1
            return self._bugs[number] < _MOST_BUGS
        return isinstance(error, StorageError | NotReady)

    def _reason(self, number: str, error: Exception) -> str:
        """What whoever asks for a batch is told of its failure; the log has the rest."""
        if isinstance(error, WindlassError) and not isinstance(error, InternalError):
            LOG.warning("batch %s has failed: %s", number, error)
            # They need not know where this machine keeps it.
            return str(error).replace(f"{self._folder.parent}{os.sep}", "")
        LOG.critical("a bug in batch %s", number, exc_info=error)
        return "a bug of Windlass broke it off; the server's log says more"

    def _next(self) -> str | None:
        """The oldest batch with something to do, once there is one; None where the queue closes."""
        with self._changed:
            while not self._closed:
                open_ones = [record for record in self._records.values() if record.is_open]
                if open_ones and self._available():
                    return min(open_ones, key=lambda record: (record.created, record.id)).id
                self._changed.wait(1.0)
            return None

    def _work(self, number: str) -> None:
        record = self._records[number]
        output = self._folder / f"{number}.jsonl"
        with OpenJob(JobPlace(output)) as job:
            journal = job.begin()
            agree(journal, self._identity)
            meter = Meter(lambda event: None)
            source = JsonlRows(str(self.files.path(record.input_file_id)))
            with self._changed:
                self._working_on, self._meter = number, meter
                if self._records[number].status == VALIDATING:
                    self._keep(replace(_at(self._records[number], IN_PROGRESS), total=source.count() or 0))
            work = Work(self._model, source, self._identity, self._defaults, _SETTINGS)
            outbox = Outbox(
                journal, partial(answer_sink, str(output), may_exist=True), work.settings.order, LOG.warning
            )
            doors = Doors(lambda lines: None, LOG.warning, partial(self._is_to_stop, number))
            ending = Run(self._answerer, work, journal, outbox, meter, doors).run()
            progress = meter.progress
        if ending == DONE or self._records[number].status == CANCELLING:
            self._finish(number, output, progress)

    def _is_to_stop(self, number: str) -> bool:
        return self._closed or not self._available() or self._records[number].status == CANCELLING

    def _finish(self, number: str, output: Path, progress: JobProgress) -> None:
        """The answers become files of their own."""
        with self._changed:
            record = self._now(self._records[number])
            ending: Status = CANCELLED if record.status == CANCELLING else COMPLETED
            if ending == COMPLETED:
                record = _at(record, FINALIZING)
                self._keep(record)
        good, bad = split_answers(output, self.files, number)
        with self._changed:
            record = replace(
                record,
                output_file_id=good.id if good else None,
                error_file_id=bad.id if bad else None,
                total=max(record.total, progress.total or 0, progress.rows),
                completed=progress.rows - progress.refused,
                failed=progress.refused,
            )
            self._keep(_at(record, ending))

    def _fail(self, number: str, reason: str) -> None:
        with self._changed:
            record = self._now(self._records[number])
            self._keep(_at(replace(record, error=reason), FAILED))


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """While one server works in a folder another would spoil its work. Raises UsageError, StorageError."""
    path = folder / "lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(JobLock(path))
        except UsageError as error:
            raise UsageError(
                f"process {holder(path)} takes the batches of {folder} already; end it, or name another folder with "
                "--jobs"
            ) from error
        yield


def _at(record: BatchRecord, status: Status) -> BatchRecord:
    return replace(record, status=status, times={**record.times, status: int(time.time())})
