"""One process a job: a lock that the system takes back from a process that dies."""

import fcntl
import os
import time
from pathlib import Path

from windlass.errors import StorageError, UsageError

# Somebody who looks whether the lock is held holds it himself for an instant.
_TRIES, _BETWEEN = 5, 0.02


class JobLock:
    """Held in a `with`. Raises UsageError with the process that holds it, StorageError where there can be no lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def __enter__(self) -> "JobLock":
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            for left in reversed(range(_TRIES)):
                if _locked(self._file, fcntl.LOCK_EX):
                    break
                if not left:
                    raise UsageError(
                        f"process {_pid(self._file)} is working on this job; let it, or stop it with `windlass jobs "
                        "cancel` or Ctrl-C, and start again"
                    )
                time.sleep(_BETWEEN)
            # Written before it is cut: on a full disk there is room for it where the last one stood.
            os.ftruncate(self._file, os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0))
        except OSError as error:
            self._close()
            raise StorageError(
                f"cannot lock {self._path}: {error.strerror}; free some space there, or make the folder writable"
            ) from error
        except UsageError:
            self._close()
            raise
        return self

    def __exit__(self, *ending: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def holder(path: Path) -> int | None:
    """The process that holds a lock, 0 where it does not say; None where nobody does."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _locked(file, fcntl.LOCK_SH) else _pid(file)
    finally:
        os.close(file)


def _locked(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(file: int) -> int:
    text = os.pread(file, 32, 0).strip()
    return int(text) if text.isdigit() else 0
