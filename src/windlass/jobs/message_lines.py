"""Puts messages together from lines as people type them: one line, a line that goes on, or a block of many.

A line that ends with a backslash goes on in the next. A line that starts with three double quotes opens a block, and
one that ends with three closes it. What was pasted at once may hold line ends and counts as one line.
"""

QUOTES = '"""'


class MessageLines:
    """`take` each line without its line end; it returns the message when it is whole."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._in_block = False

    @property
    def is_open(self) -> bool:
        """Whether a message was begun and is not whole yet."""
        return bool(self._lines) or self._in_block

    @property
    def opened_by(self) -> str:
        """What keeps the message open."""
        return QUOTES if self._in_block else "a backslash"

    def take(self, line: str) -> str | None:
        """The whole message, or None while it goes on."""
        if not self.is_open and line.startswith(QUOTES):
            self._in_block = True
            line = line.removeprefix(QUOTES)
        if self._in_block:
            return self._take_in_block(line)
        if line.endswith("\\"):
            self._lines.append(line.removesuffix("\\"))
            return None
        return self._whole(line)

    def drop(self) -> None:
        """Forgets a message that is not whole."""
        self._lines, self._in_block = [], False

    def _take_in_block(self, line: str) -> str | None:
        closed = line.rstrip().endswith(QUOTES)
        if not closed:
            self._lines.append(line)
            return None
        return self._whole(line.rstrip().removesuffix(QUOTES)).strip("\n")

    def _whole(self, last: str) -> str:
        message = "\n".join([*self._lines, last])
        self.drop()
        return message
