"""The environment, read in one place: what a person may set outside a command, and what the process finds around it.

WINDLASS_CACHE         folder of verdicts, profiles, kernels, runs and chats; else $XDG_CACHE_HOME/windlass, else
                       ~/.cache/windlass
WINDLASS_NUM_THREADS   threads to compute with; else as many as the process may use cores
WINDLASS_NATIVE        0 to attend by torch alone, without a kernel compiled on this machine
WINDLASS_API_KEY       the key that `windlass serve` asks of its clients, and that a client sends
CC                     the C compiler; else cc, gcc or clang
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from windlass.errors import UsageError


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where verdicts and measurements are kept between runs. It need not exist yet."""
    if environ.get("WINDLASS_CACHE"):
        return Path(environ["WINDLASS_CACHE"]).expanduser().absolute()
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    # The XDG base directory specification has relative paths ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / "windlass"


def num_threads(environ: Mapping[str, str] = os.environ) -> int:
    """Threads to compute with, at least 1. Raises UsageError for a value that is no positive whole number."""
    text = environ.get("WINDLASS_NUM_THREADS", "").strip()
    if not text:
        return usable_cores()
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"WINDLASS_NUM_THREADS is {text!r}; set it to a whole number from 1 up, or unset it")
    return int(text)


def wants_native(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether kernels may be compiled on this machine and used."""
    return environ.get("WINDLASS_NATIVE", "").strip() != "0"


def c_compiler(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The C compiler asked for and its first arguments; empty where none is named."""
    return tuple(environ.get("CC", "").split())


def api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """The key of a server; None where there is none."""
    return environ.get("WINDLASS_API_KEY", "").strip() or None


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine has under taskset or a container's cpuset."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:
        return os.cpu_count() or 1


def stderr_is_terminal() -> bool:
    """Whether a person watches progress: bars there, one JSON line a step otherwise."""
    return sys.stderr.isatty()
