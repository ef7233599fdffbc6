"""How a verb ends: 0 done, 1 failed, 2 misuse, 130 interrupted, and never with a traceback for what a person did."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from windlass.cli.misuse import Misuse, misuse_text
from windlass.errors import WindlassError

FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def plain_exits() -> Iterator[None]:
    """Turns the errors of the tree, misuse, Ctrl-C, a closed pipe and a full disk into one line and an exit code."""
    try:
        yield
        sys.stdout.flush()
    except WindlassError as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(error.exit_code) from error
    except Misuse as error:
        sys.stderr.write(f"error: {misuse_text(error)}\n")
        raise typer.Exit(MISUSED) from error
    except KeyboardInterrupt as interrupt:
        sys.stderr.write("interrupted\n")
        raise typer.Exit(INTERRUPTED) from interrupt
    except BrokenPipeError as closed:
        _drop_standard_output()
        raise typer.Exit(FAILED) from closed
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _drop_standard_output()
        sys.stderr.write(
            f"error: cannot write standard output: {error.strerror}; free some space, or send it to another disk\n"
        )
        raise typer.Exit(FAILED) from error


@contextmanager
def files_removed() -> Iterator[None]:
    """While files lie about that must go: a process that is asked to terminate ends as on Ctrl-C, and removes them."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """A process that is asked to terminate ends as on Ctrl-C: it says so, and exits with the code of that."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def _drop_standard_output() -> None:
    """The reader has gone; what is still buffered must not complain when the interpreter flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
