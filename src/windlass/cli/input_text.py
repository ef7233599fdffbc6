"""Standard input as text: all of it, or a line at a time. Bytes that are no text are refused with their place."""

import sys
from collections.abc import Iterator

from windlass.errors import UsageError


def read_input() -> str:
    """All of standard input without its last line end. Raises UsageError where it is empty."""
    text = _decoded(sys.stdin.buffer.read(), "standard input").replace("\r\n", "\n").removesuffix("\n")
    if not text:
        raise UsageError("standard input is empty, so there is no prompt; pipe a text in or write it as an argument")
    return text


def input_lines() -> Iterator[str]:
    """Each line of standard input without its end, as it comes. Raises UsageError."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        yield _decoded(line, f"line {number} of standard input").removesuffix("\n").removesuffix("\r")


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8 (byte {error.start}); convert it, for example with iconv") from error
