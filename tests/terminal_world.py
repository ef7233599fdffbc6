"""A program as a person meets it: a real process behind a pseudo-terminal, keys in, what the screen shows out."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
CTRL_C = b"\x03"
# Seconds without a word after which Ctrl-C is pressed again, and after which a test has failed.
UNHEARD, STUCK = 20.0, 300.0
# Makes the pseudo-terminal the one that Ctrl-C of the process comes from, and becomes the program.
BEGIN = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A Python program behind a pseudo-terminal, begun with `arguments` of the interpreter.

    Reads wait until what is asked for has come; where nothing comes they fail. `kind` is what the program takes the
    terminal for: a "dumb" one is sent no codes that move the cursor or hide it.
    """

    def __init__(self, arguments: list[str], cache: Path, kind: str = "dumb") -> None:
        environ = dict(os.environ) | {
            "PYTHONPATH": str(SOURCE), "WINDLASS_CACHE": str(cache), "TERM": kind, "COLUMNS": "100",
        }  # fmt: skip
        self._file, inside = pty.openpty()
        command = [sys.executable, "-c", BEGIN, *arguments]
        # Not by pty.fork: what a process with threads runs between fork and exec may hang.
        self._process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True, env=environ
        )
        os.close(inside)

    def until(self, mark: bytes) -> str:
        """What the screen shows up to and with `mark`."""
        shown = b""
        while mark not in shown:
            piece = self._read()
            assert piece, f"the program ended before it showed {mark!r}: {shown!r}"
            shown += piece
        return shown.decode(errors="replace")  # the last piece may end in the middle of a character

    def press(self, keys: bytes) -> None:
        os.write(self._file, keys)

    def interrupt(self) -> None:
        """Ctrl-C, until it is heard: Python misses one that comes between readline's last character and its waiting."""
        self.press(CTRL_C)
        while not self._has_more(UNHEARD):
            self.press(CTRL_C)

    def say(self, line: str, mark: bytes = b">>> ") -> str:
        """Types a line and reads to the next prompt."""
        self.press(line.encode() + b"\n")
        return self.until(mark)

    def ended(self) -> int:
        """The exit code, once all is read."""
        return self.rest()[1]

    def rest(self) -> tuple[str, int]:
        """What the screen shows up to the end of the program, and the exit code."""
        shown = b""
        while piece := self._read():
            shown += piece
        return shown.decode(errors="replace"), self._process.wait(STUCK)

    def stop(self) -> None:
        """Ends the process if it has not ended yet."""
        self._process.kill()
        self._process.wait()
        os.close(self._file)

    def _has_more(self, seconds: float) -> bool:
        return bool(select.select([self._file], [], [], seconds)[0])

    def _read(self) -> bytes:
        assert self._has_more(STUCK), f"the program has said nothing for {STUCK:.0f} s"
        try:
            return os.read(self._file, 4096)
        except OSError:  # on Linux the end of a pseudo-terminal is an error
            return b""
