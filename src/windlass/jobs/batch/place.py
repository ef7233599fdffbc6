"""Where a job keeps what it remembers: in a folder beside its output."""

import hashlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import StorageError, UsageError
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.lock import JobLock

_SUFFIX = ".journal"


@dataclass(frozen=True, slots=True)
class JobPlace:
    """The files of the job that writes `output`, a file or a folder of files."""

    output: Path

    @property
    def id(self) -> str:
        """The same for the same output, whatever it is called."""
        return hashlib.sha256(str(self.output.resolve()).encode(errors="surrogatepass")).hexdigest()[:6]

    @property
    def folder(self) -> Path:
        """All of it; whoever deletes it makes the program forget the job."""
        return self.output.absolute().with_name(self.output.absolute().name + _SUFFIX)

    @property
    def journal(self) -> Path:
        """The file of the Journal."""
        return self.folder / "rows.sqlite"

    @property
    def lock(self) -> Path:
        """The file of the JobLock."""
        return self.folder / "lock"


class OpenJob:
    """A job that is this process's alone, in a `with`.

    A job that was never begun leaves nothing behind. Raises UsageError where another process has it, StorageError.
    """

    def __init__(self, place: JobPlace) -> None:
        self.place = place
        self._stack = ExitStack()
        self._journal: Journal | None = None

    def __enter__(self) -> "OpenJob":
        folder = self.place.folder
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            raise UsageError(
                f"cannot write {self.place.output}: {error.strerror}; name a file in a folder you may write to"
            ) from error
        except OSError as error:
            raise UsageError(
                f"cannot write {folder}: {error.strerror}; name an output in a folder you may write to"
            ) from error
        try:
            self._stack.enter_context(JobLock(self.place.lock))
        except StorageError:
            self._remove_unused()
            raise
        self._stack.callback(self._remove_unused)
        return self

    def __exit__(self, *ending: object) -> None:
        self._stack.close()

    def begin(self) -> Journal:
        """Opens the journal, a new one where there is none."""
        if self._journal is None:
            self._journal = self._stack.enter_context(Journal(self.place.journal))
        return self._journal

    @property
    def is_begun(self) -> bool:
        """Whether there is something to go on with."""
        return self.place.journal.exists()

    def drop(self) -> None:
        """Forgets all that was answered. Raises StorageError."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        try:
            for file in sorted(self.place.folder.glob(f"{self.place.journal.name}*")):
                file.unlink()
        except OSError as error:
            raise StorageError(f"cannot remove {self.place.journal}: {error.strerror}; remove it yourself") from error

    def _remove_unused(self) -> None:
        if not self.is_begun:
            with suppress(OSError):
                self.place.lock.unlink(missing_ok=True)
                self.place.folder.rmdir()
