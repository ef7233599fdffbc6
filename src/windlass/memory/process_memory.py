"""What the process holds and may still take, as the system counts it: a budget that is not measured is a wish.

Linux is read from /proc and the control groups; elsewhere psutil and getrusage give what they can.
"""

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from windlass.memory.control_group import control_group_rooms
from windlass.units import MIB

LINUX = sys.platform == "linux"

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def resident_bytes() -> int:
    """Bytes of memory the process holds now, shared libraries included."""
    if LINUX:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most bytes the process has held since it began, or since `reset_peak`."""
    if LINUX:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # macOS counts bytes here, the others kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> bool:
    """Lets the peak begin anew at what is held now. False where the system does not allow that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def available_bytes() -> int:
    """Bytes the process may still take: the machine's free memory, or less where a control group leaves less."""
    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *control_group_rooms()]))


def return_free_memory() -> bool:
    """Hands what malloc holds but nobody uses back to the system. False where the C library cannot."""
    library = _gnu_library()
    return library is not None and bool(library.malloc_trim(0))


@contextmanager
def big_blocks_outside_heap(big: int = 128 * 1024) -> Iterator[None]:
    """Blocks of `big` bytes or more are mapped one by one meanwhile, and leave no hole in the heap when they go.

    Holes are what later temporaries are spread over: a heap of 2.3 GiB with 0.1 in use, left by the placeholders of a
    model of 3 GB, made a run that needed 640 MiB take anything up to 750. Afterwards `limit_malloc` holds again.
    """
    library = _gnu_library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, big)
    try:
        yield
    finally:
        limit_malloc()


def limit_malloc(big: int = 32 * MIB) -> bool:
    """Lets blocks of `big` bytes or more go back to the system when they are freed. False without the GNU library.

    Fresh pages cost about 0.3 ms a MiB, reused ones 0.015 (torch `a * 2` on 2 cores), so temporaries below 32 MiB stay
    on the heap, which keeps at most twice that free at its top. That is where the library's own sliding threshold ends
    too, but only after it has been through the sizes; and it never lets every thread have a heap of its own.
    """
    library = _gnu_library()
    if library is None:
        return False
    set_big = library.mallopt(_M_MMAP_THRESHOLD, big) and library.mallopt(_M_TRIM_THRESHOLD, 2 * big)
    return bool(set_big and library.mallopt(_M_ARENA_MAX, 2))


def _gnu_library() -> ctypes.CDLL | None:
    if not LINUX:
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        # Looking the names up is what finds another C library out.
        library.malloc_trim.argtypes, library.mallopt.argtypes = [ctypes.c_size_t], [ctypes.c_int, ctypes.c_int]
    except (OSError, AttributeError):
        return None
    return library
