"""Tells how far a download has come, by looking at what has arrived on the disk.

The hub's own counters differ between its versions and ways of transport; the files in its cache do not.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.utils import tqdm

from windlass.facts.progress import Progress

# Seconds between two looks.
INTERVAL = 0.5
# stat counts the blocks a file takes in these, whatever the filesystem's own are.
STAT_BLOCK = 512


class NoBar(tqdm):
    """Takes the place of the hub's bars where somebody else draws."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"disable": True}))


@contextmanager
def watched(folder: Path, total: int, on_progress: Callable[[Progress], None] | None) -> Iterator[None]:
    """While the body runs, tells of the bytes that came into `folder`, of `total`; once more at its end."""
    if on_progress is None or not total:
        yield
        return
    before, start, finished = _bytes_in(folder), time.perf_counter(), threading.Event()

    def tell(done: int) -> None:
        seconds = time.perf_counter() - start
        left = (total - done) * seconds / done if done else 0.0
        on_progress(Progress("download", done, total, seconds, 0.0, 0.0, 0.0, 0, 0, left, 0))

    def look() -> None:
        while not finished.wait(INTERVAL):
            tell(min(max(_bytes_in(folder) - before, 0), total))

    watch = threading.Thread(target=look, name="windlass-download-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        finished.set()
        watch.join()
    tell(total)


def _bytes_in(folder: Path) -> int:
    """Bytes that the files of a folder take on the disk: a file laid out in advance counts what was written."""
    if not folder.is_dir():
        return 0
    size = 0
    for file in folder.iterdir():
        try:
            size += file.stat().st_blocks * STAT_BLOCK
        except FileNotFoundError:
            continue  # renamed or dropped between the listing and now
    return size
