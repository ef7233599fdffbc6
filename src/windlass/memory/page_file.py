"""A file of the offload folder for what has no place in memory: written behind, read ahead, gone when the process is.

The file has no name once it is open, so that nothing is left of it however the process ends. Its room is taken when it
is made: a disk that is full says so before anything runs.
"""

import errno
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from windlass.errors import StorageError
from windlass.facts.piece import BLOCK
from windlass.facts.time_span import OnSpan
from windlass.memory.disk import O_DIRECT
from windlass.units import format_bytes

# Reads and writes in flight; more than one hides the disk's own latency, many more only queue up.
DEPTH = 8


class PageFile:
    """`nbytes` bytes below `folder`. With `direct`, offsets, sizes and addresses are multiples of 4096.

    Raises StorageError where the folder is missing, not writable, or has not got the room.
    """

    def __init__(self, folder: str | Path, nbytes: int, direct: bool) -> None:
        self.folder, self.nbytes = Path(folder), nbytes
        self.busy_seconds, self.bytes_read, self.bytes_written = 0.0, 0, 0
        self._lock, self._in_flight, self._since = threading.Lock(), 0, 0.0
        self._on_span: OnSpan | None = None
        self._descriptor = self._create(direct and O_DIRECT != 0)
        self._threads = ThreadPoolExecutor(max_workers=DEPTH, thread_name_prefix="windlass-page-file")

    def listen(self, on_span: OnSpan) -> None:
        """Tells of every time in which something was read or written, from now on."""
        self._on_span = on_span

    def read(self, offset: int, target: memoryview) -> "Future[None]":
        """Fills `target` from byte `offset` on. The future raises StorageError."""
        return self._threads.submit(self._do, self._read, offset, target)

    def write(self, offset: int, source: memoryview) -> "Future[None]":
        """Writes `source` at byte `offset`; it must not change until the future is done, which raises StorageError."""
        return self._threads.submit(self._do, self._write, offset, source)

    def close(self) -> None:
        """Ends what is in flight; the bytes are gone."""
        self._threads.shutdown(cancel_futures=True)
        os.close(self._descriptor)

    def _create(self, direct: bool) -> int:
        _check_room(self.folder, self.nbytes)
        try:
            descriptor, name = tempfile.mkstemp(prefix="windlass-", suffix=".pages", dir=self.folder)
            try:
                if sys.platform == "linux":
                    os.posix_fallocate(descriptor, 0, self.nbytes)
                else:
                    os.ftruncate(descriptor, self.nbytes)
                opened = _reopen(name, direct)
            finally:
                os.close(descriptor)
                os.unlink(name)
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot hold {format_bytes(self.nbytes)} of keys and values: {error.strerror}; "
                "name a folder on another disk with --offload-dir"
            ) from error
        return opened

    def _do(self, work: Callable[[int, memoryview], None], offset: int, view: memoryview) -> None:
        with self._lock:
            if self._in_flight == 0:
                self._since = time.perf_counter()
            self._in_flight += 1
        try:
            work(offset, view)
        except OSError as error:
            raise StorageError(
                f"a file in {self.folder} failed at byte {offset:,}: {error.strerror}; check the disk (dmesg), or name "
                "a folder on another one with --offload-dir"
            ) from error
        finally:
            with self._lock:
                self._in_flight -= 1
                if self._in_flight == 0:
                    now = time.perf_counter()
                    self.busy_seconds += now - self._since
                    if self._on_span is not None:
                        self._on_span("disk", "keys and values", self._since, now)

    def _read(self, offset: int, target: memoryview) -> None:
        done = 0
        while done < len(target):
            got = os.preadv(self._descriptor, [target[done:]], offset + done)
            if not got:
                raise OSError(errno.EIO, "the file ends too early")
            done += got
        with self._lock:
            self.bytes_read += done

    def _write(self, offset: int, source: memoryview) -> None:
        done = 0
        while done < len(source):
            done += os.pwritev(self._descriptor, [source[done:]], offset + done)
        with self._lock:
            self.bytes_written += done


def _check_room(folder: Path, nbytes: int) -> None:
    if not folder.is_dir():
        raise StorageError(f"--offload-dir {folder} is not a folder; make it, or name another one")
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise StorageError(
            f"{folder} has {format_bytes(free)} free and {format_bytes(nbytes)} of keys and values are to go there: "
            f"{format_bytes(nbytes - free)} are missing; free them, or name a folder on another disk with --offload-dir"
        )


def _reopen(name: str, direct: bool) -> int:
    """Direct where the filesystem takes it."""
    flags = os.O_RDWR | os.O_CLOEXEC
    if direct:
        try:
            return os.open(name, flags | O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(name, flags)


def aligned(*sizes: int) -> bool:
    """Whether pieces of these sizes can be read and written directly."""
    return all(size % BLOCK == 0 for size in sizes)
