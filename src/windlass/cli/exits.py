"""How a verb ends: 0 done, 1 failed, 2 misuse, 130 interrupted, and never with a traceback for what a person did."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from windlass.errors import WindlassError

FAILED, INTERRUPTED = 1, 130


@contextmanager
def plain_exits() -> Iterator[None]:
    """Turns the errors of the tree, Ctrl-C and a closed pipe into one line at most and an exit code."""
    try:
        yield
        sys.stdout.flush()
    except WindlassError as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as interrupt:
        sys.stderr.write("interrupted\n")
        raise typer.Exit(INTERRUPTED) from interrupt
    except BrokenPipeError as closed:
        _drop_standard_output()
        raise typer.Exit(FAILED) from closed


def _drop_standard_output() -> None:
    """The reader has gone; what is still buffered must not complain when the interpreter flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
