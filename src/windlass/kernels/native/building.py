"""The folder that a compilation writes to until its result is whole, and what killed ones have left.

Its name says who made it, so that one whose maker is gone is removed by whoever compiles next. Processes of other
machines, or of other containers, are not seen from here: what they made goes when it is an hour old.
"""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OLDEST = 3600.0
"""Seconds; no compilation takes nearly as long."""


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for one compilation, gone when it is over. Removes what others have left behind."""
    for path in folder.glob("building-*"):
        if _left_behind(path):
            shutil.rmtree(path, ignore_errors=True)  # another may remove it too
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"building-{os.getpid()}{_here()}") as scratch:
        yield Path(scratch)


def _left_behind(path: Path) -> bool:
    maker = path.name.split("-")[1]
    if maker.isdigit() and path.name.startswith(f"building-{maker}{_here()}") and not _lives(int(maker)):
        return True
    try:
        return time.time() - path.stat().st_mtime > OLDEST
    except FileNotFoundError:
        return False


def _here() -> str:
    return f"-on-{platform.node()}-"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
