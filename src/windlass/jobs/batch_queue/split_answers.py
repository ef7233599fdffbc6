"""The answers of a batch as OpenAI gives them: a file of those that came, and one of the reasons for the others."""

import json
import tempfile
from pathlib import Path
from typing import BinaryIO

from windlass.errors import StorageError
from windlass.jobs.batch_queue.file_store import FileStore
from windlass.jobs.batch_queue.stored_file import BATCH_OUTPUT, StoredFile


def split_answers(answers: Path, files: FileStore, name: str) -> tuple[StoredFile | None, StoredFile | None]:
    """Answers and errors of a file of both; None for one without a row. Raises StorageError."""
    try:
        with tempfile.TemporaryFile(dir=answers.parent) as good, tempfile.TemporaryFile(dir=answers.parent) as bad:
            if answers.exists():
                with open(answers, "rb") as lines:
                    for line in lines:
                        (good if json.loads(line)["error"] is None else bad).write(line)
            return _kept(good, files, f"{name}_output.jsonl"), _kept(bad, files, f"{name}_error.jsonl")
    except OSError as error:
        raise StorageError(f"cannot divide {answers}: {error.strerror}; free some space") from error


def _kept(file: BinaryIO, files: FileStore, name: str) -> StoredFile | None:
    if not file.tell():
        return None
    file.seek(0)
    return files.add(file, name, BATCH_OUTPUT)
