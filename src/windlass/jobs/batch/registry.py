"""The jobs of this machine, a JSON file each in the cache folder; how they stand is asked of their journals."""

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from windlass.errors import StorageError, UsageError
from windlass.facts.job_progress import JobProgress
from windlass.facts.job_record import JobRecord, JobView
from windlass.jobs.batch.ending import CANCEL, CANCELLED, DONE, PAUSED, RUNNING, STOPPED
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.lock import JobLock, holder
from windlass.jobs.batch.place import JobPlace

GONE, UNREADABLE = "gone", "unreadable"


class Registry:
    """The folder `jobs` below `folder`, the cache's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "jobs"

    def add(self, record: JobRecord) -> None:
        """In place of what was known of the same job. Raises StorageError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            number, beside = tempfile.mkstemp(prefix=".", dir=self._folder)
            try:
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    json.dump(asdict(record), file, indent=1)
                os.replace(beside, self._file(record))
            except OSError:
                os.unlink(beside)
                raise
        except OSError as error:
            raise StorageError(
                f"{self._folder} cannot be written: {error.strerror}; make it writable, or name another folder with "
                "WINDLASS_CACHE"
            ) from error

    def views(self) -> list[JobView]:
        """Every job, the latest first."""
        found = [_read(file) for file in self._folder.glob("*.json")]
        records = sorted((record for record in found if record), key=lambda record: record.started, reverse=True)
        return [_view(record) for record in records]

    def view(self, job: str) -> JobView:
        """The job whose id begins so, or else whose output that is.

        Raises UsageError where there is none, or more than one.
        """
        all_views = self.views()
        views = [view for view in all_views if job and view.record.id.startswith(job)]
        if not views:
            output = JobPlace(Path(job)).id
            views = [view for view in all_views if view.record.id == output]
        if len(views) != 1:
            found = (
                f"{len(views)} jobs have ids that begin with {job}" if views else f"no job has the id or output {job}"
            )
            raise UsageError(f"{found}; see `windlass jobs`")
        return views[0]

    def prune(self) -> int:
        """Forgets the jobs whose journals are gone; how many they were."""
        gone = [view.record for view in self.views() if view.state == GONE]
        for record in gone:
            with suppress(OSError):
                self._file(record).unlink()
        return len(gone)

    def _file(self, record: JobRecord) -> Path:
        return self._folder / f"{record.id}.json"


def call_off(view: JobView) -> bool:
    """Ends a job: the process at work hears of it after its pass; whether there is one.

    Raises UsageError for a job that is gone, StorageError.
    """
    if view.state == DONE:
        raise UsageError(f"job {view.record.id} is done; there is nothing to cancel, see {view.record.output}")
    if view.state in (GONE, UNREADABLE):
        raise UsageError(
            f"job {view.record.id} is {view.state}: {view.record.journal} cannot be asked; delete what is left of it"
        )
    with Journal(Path(view.record.journal)) as journal:
        if view.pid is not None:
            journal.keep(wish=CANCEL)
            return True
        with JobLock(Path(view.record.lock)):
            if journal.fact("state") != "done":
                journal.keep(state=CANCELLED)
        return False


def _view(record: JobRecord) -> JobView:
    pid = holder(Path(record.lock))
    if not Path(record.journal).exists():
        return JobView(record, GONE, None, JobProgress())
    try:
        with Journal(Path(record.journal), read_only=True) as journal:
            state, progress = journal.fact("state") or RUNNING, journal.fact("progress") or {}
    except (StorageError, UsageError):
        return JobView(record, UNREADABLE, pid, JobProgress())
    if pid is None and state in (RUNNING, PAUSED):
        state = STOPPED  # it was killed
    elif pid is not None and state != PAUSED:
        state = RUNNING
    return JobView(record, state, pid, JobProgress.from_dict(progress))


def _read(file: Path) -> JobRecord | None:
    try:
        return JobRecord.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None  # of another version, or half gone: not worth an error
