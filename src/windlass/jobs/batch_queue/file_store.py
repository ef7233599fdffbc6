"""The files of a server in one folder, each under a name of the server's own making."""

import os
import shutil
import threading
import time
from pathlib import Path
from typing import BinaryIO

from windlass.errors import StorageError
from windlass.jobs.batch_queue.new_id import new_id
from windlass.jobs.batch_queue.stored_file import StoredFile
from windlass.jobs.batch_queue.whole_json import made_folder, read_all, write_json

_PART = ".part"


class FileStore:
    """May be used from any thread. A file is there once its facts are; what a kill left half written is removed.

    Raises StorageError.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = made_folder(folder)
        self._lock = threading.Lock()
        self._files = {file.id: file for file in map(StoredFile.from_dict, read_all(folder))}
        for path in folder.glob(f"*{_PART}"):
            path.unlink(missing_ok=True)

    def add(self, content: BinaryIO, name: str, purpose: str) -> StoredFile:
        """Keeps what is left to read of a file; it is on the disk when this returns."""
        number = new_id("file-")
        part = self.path(number).with_suffix(_PART)
        try:
            with open(part, "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            nbytes = part.stat().st_size
            os.replace(part, self.path(number))
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StorageError(
                f"cannot keep {name!r:.100} in {self._folder}: {error.strerror}; free some space and send it again"
            ) from error
        stored = StoredFile(number, name, purpose, nbytes, int(time.time()))
        write_json(self._facts(number), stored.as_dict())
        with self._lock:
            self._files[number] = stored
        return stored

    def get(self, number: str) -> StoredFile | None:
        """The file of this id, if there is one."""
        with self._lock:
            return self._files.get(number)

    def all(self) -> list[StoredFile]:
        """The latest first."""
        with self._lock:
            return sorted(self._files.values(), key=lambda file: (file.created, file.id), reverse=True)

    def path(self, number: str) -> Path:
        """Where the content of a file lies; to be asked for ids that `get` knows."""
        return self._folder / f"{number}.jsonl"

    def remove(self, number: str) -> None:
        """Forgets a file, and its content."""
        with self._lock:
            self._files.pop(number, None)
        self._facts(number).unlink(missing_ok=True)
        self.path(number).unlink(missing_ok=True)

    def _facts(self, number: str) -> Path:
        return self._folder / f"{number}.json"
