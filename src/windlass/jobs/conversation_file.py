"""Conversations kept in files: whole or not at all, and never over a file of another kind."""

import os
import tempfile
from pathlib import Path

from windlass.errors import StorageError, UsageError
from windlass.facts.conversation import Conversation

_FORM = 'a conversation file holds {"messages": [...]}, as /save writes it'


def read_conversation(name: str) -> Conversation:
    """Raises UsageError where there is no such file or it holds something else, StorageError."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file that /save wrote")
    try:
        return Conversation.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; name a file that /save wrote") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no conversation: byte {error.start} is not UTF-8; {_FORM}") from error
    except UsageError as error:
        raise UsageError(f"{path} is no conversation: {error}; {_FORM}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error


def write_conversation(name: str, conversation: Conversation) -> Path:
    """Replaces a conversation that was there. Raises UsageError for a file of another kind, StorageError."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file, as in {path / 'talk.json'}")
    if path.exists() and path.stat().st_size:
        _refuse_other_kind(path)
    try:
        _replace(path, conversation.as_json())
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}; name a file in a folder with space that you may write to"
        ) from error
    return path


def _refuse_other_kind(path: Path) -> None:
    try:
        read_conversation(str(path))
    except UsageError as error:
        raise UsageError(f"{path} exists and is no conversation, so it stays as it is; name another file") from error


def _replace(path: Path, text: str) -> None:
    """Written beside its place first: a full disk leaves the old file whole. A device is written in place."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    number, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
