"""A text to be read by a model: any file in UTF-8, read in pieces, so that what is no text is refused at its start."""

import codecs
import sys
from pathlib import Path
from typing import BinaryIO

from windlass.errors import StorageError, UsageError
from windlass.units import MIB

# Of a character in UTF-8.
MOST_BYTES = 4


def read_text(path: str, most_characters: int | None = None) -> str:
    """The text of a file, or of standard input for `-`; little more than `most_characters` of it where that is given.

    Raises UsageError for a file that is absent, empty or no text, StorageError for one that cannot be read.
    """
    if path == "-":
        return _read(sys.stdin.buffer, "standard input", most_characters)
    if Path(path).is_dir():
        raise UsageError(f"--text {path} is a folder; name a file of text in it")
    try:
        with open(path, "rb") as file:
            return _read(file, path, most_characters)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; name a file of text with --text") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error


def _read(file: BinaryIO, name: str, most_characters: int | None) -> str:
    decoder, parts, done = codecs.getincrementaldecoder("utf-8-sig")(), list[str](), 0
    while most_characters is None or done < MOST_BYTES * most_characters:
        piece = file.read(MIB)
        _refuse_binary(piece, name, done)
        try:
            parts.append(decoder.decode(piece, final=not piece))
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{name} is no UTF-8 text (byte {done + error.start}); convert it, for example with iconv"
            ) from error
        done += len(piece)
        if not piece:
            break
    text = "".join(parts)
    if not text.strip():
        raise UsageError(f"{name} holds no text ({done} bytes); name a file with some pages of it")
    return text


def _refuse_binary(piece: bytes, name: str, before: int) -> None:
    place = piece.find(0)
    if place >= 0:
        raise UsageError(f"{name} is binary, no text (byte {before + place} is zero); name a file of text")
