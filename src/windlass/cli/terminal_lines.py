"""Lines that a person types: edited and remembered through readline where Python has it."""

import os
import sys
from pathlib import Path
from types import TracebackType

from windlass.errors import UsageError

try:
    import readline

    EDITED = True
except ImportError:  # Windows, and builds of Python without it: lines can be typed, not edited
    EDITED = False

REMEMBERED = 1000


class TerminalLines:
    """Reads lines in a `with`; what was typed is kept in `history`, a file that only its owner may read."""

    def __init__(self, history: Path) -> None:
        self._history = history

    def read(self, prompt: str) -> str:
        """One line without its end. Raises EOFError, KeyboardInterrupt, and UsageError for bytes that are no text."""
        try:
            if sys.stdout.isatty():
                return input(prompt)
            # input() would write its prompt among the answers.
            sys.stderr.write(prompt)
            sys.stderr.flush()
            return input()
        except UnicodeDecodeError as error:
            raise UsageError(f"the line is not UTF-8 (byte {error.start}); set the terminal to UTF-8") from error

    def typed(self) -> str:
        """What stood in the line when Ctrl-C came."""
        return readline.get_line_buffer() if EDITED else ""

    def __enter__(self) -> "TerminalLines":
        if EDITED:
            # A tab is part of a text here; nothing is to be completed.
            readline.parse_and_bind("tab: self-insert")
            readline.set_history_length(REMEMBERED)
            try:
                readline.read_history_file(self._history)
            except OSError:
                readline.clear_history()  # none yet, or one that cannot be read: it begins here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if EDITED:
            self._keep()

    def _keep(self) -> None:
        """A history that cannot be written costs nothing but the history."""
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_CREAT | os.O_WRONLY, 0o600))
            os.chmod(self._history, 0o600)
            readline.write_history_file(self._history)
        except OSError:
            return
