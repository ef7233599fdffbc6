"""Timelines in files: a forecast and a measured one side by side, in the form that Perfetto and Chrome open."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from windlass.errors import StorageError, UsageError
from windlass.facts.time_span import TimeSpan
from windlass.planner.timeline import chrome_trace, read_chrome_trace

Timeline = dict[str, list[TimeSpan]]


def read_timeline(file: Path) -> Timeline:
    """The processes ("forecast", "measured") of a timeline's file. Raises UsageError, StorageError."""
    try:
        return read_chrome_trace(json.loads(file.read_bytes()), str(file))
    except ValueError as error:
        raise UsageError(f"{file} holds no JSON, so no timeline; name another file, or remove it") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}; name another file") from error


def check_timeline(file: Path) -> None:
    """Refuses a file that cannot take a timeline: one of something else is not overwritten. Raises UsageError."""
    if file.exists():
        read_timeline(file)
    elif not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for the timeline; make it, or name another file")


def add_to_timeline(file: Path, process: str, spans: Sequence[TimeSpan]) -> Timeline:
    """Writes `spans` as `process`; what the file holds of the other process stays, to be laid over it.

    So a forecast written by `plan` and a run that names the same file stand in one picture. Returns all of it. Raises
    UsageError, StorageError.
    """
    timeline = read_timeline(file) if file.exists() else {}
    timeline[process] = list(spans)
    _write(file, json.dumps(chrome_trace(timeline)).encode())
    return timeline


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        try:
            with os.fdopen(descriptor, "wb") as target:
                target.write(content)
            os.chmod(name, 0o644)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise StorageError(
            f"the timeline could not be written to {file}: {error.strerror}; name a file on another disk"
        ) from error
