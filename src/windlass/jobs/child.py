"""A run in a process of its own, ended with ours: a budget is a limit on a whole process."""

import signal
import subprocess
from collections.abc import Sequence

from windlass.errors import WindlassError

_PATIENCE = 10.0


def output_of(command: Sequence[str], given: str | None = None) -> str:
    """What `command`, told `given` on its standard input, writes to standard output; its standard error is ours.

    Raises WindlassError where it fails.

    On Ctrl-C the child is interrupted once and waited for, so that it can put the terminal right.
    """
    told = None if given is None else subprocess.PIPE
    with subprocess.Popen(command, stdin=told, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        try:
            written, _ = child.communicate(given)
        finally:
            _end(child)
    if child.returncode:
        raise WindlassError(f"`{' '.join(command)}` failed with exit code {child.returncode}; its message stands above")
    return written


def _end(child: "subprocess.Popen[str]") -> None:
    """Nothing for one that has ended."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
