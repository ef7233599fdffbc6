"""Reads the header of a GGUF file by hand: what the file says of its model, and where each tensor lies.

The gguf package makes an array of each string, which for a vocabulary takes seconds, believes any length it reads, and
would have to be installed. The format (github.com/ggml-org/ggml, docs/gguf.md), little-endian: "GGUF", version (u32),
numbers of tensors and of values (u64); then the values: name, type (u32), value; then the tensors: name, number of
dimensions (u32), sizes (u64 each, the columns first), type (u32), offset from the beginning of the data (u64), which
is the next multiple of `general.alignment`. A string is its length (u64) and UTF-8, an array the type of its items
(u32), their number (u64) and they. A header is foreign input: whatever is wrong with it becomes a CheckpointError.
"""

import math
import mmap
import os
import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.gguf_types import GGUF_TYPES
from windlass.facts.tensor_fact import TensorFact

GgufValue = int | float | bool | str | Sequence[int] | Sequence[float] | Sequence[bool] | Sequence[str]

_MAGIC = b"GGUF"
_GIT_LFS = b"vers"
_VERSIONS = (2, 3)
# A vocabulary of 262,144 tokens makes a header of some 15 MB.
_LONGEST_HEADER = 256_000_000
_MOST_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
_LARGEST_ALIGNMENT = 1 << 20

# Type of a value -> what struct calls it.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """`metadata` as in the file. A tensor's `dtype` is GGUF's name of its type, its `shape` has the columns last."""

    file: str
    metadata: Mapping[str, GgufValue]
    tensors: tuple[TensorFact, ...]


def read_gguf_header(path: str | Path) -> GgufHeader:
    """Raises CheckpointError if the file cannot be read, is cut short, or its header is not sound."""
    file = os.path.abspath(path)
    try:
        with open(file, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size < 24:
                _refuse(file, f"the file has {size} bytes, a header needs at least 24")
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reading(file, content, size).header()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}; check the path and its permissions") from error


class _Reading:
    """The place that has been reached in a file."""

    def __init__(self, file: str, content: mmap.mmap, size: int) -> None:
        self._file, self._content, self._size = file, content, size
        self._limit, self._place = min(size, _LONGEST_HEADER), 0

    def header(self) -> GgufHeader:
        tensors, values = self._beginning()
        metadata: dict[str, GgufValue] = {}
        for _ in range(values):
            name = self._string()
            if name in metadata:
                _refuse(self._file, f"the value {name!r} occurs twice")
            metadata[name] = self._value(name, self._number("I"))
        entries = [self._entry() for _ in range(tensors)]
        start = _round_up(self._place, self._alignment(metadata))
        facts: dict[str, TensorFact] = {}
        for name, shape, kind, offset in entries:
            if name in facts:
                _refuse(self._file, f"the tensor {name!r} occurs twice")
            facts[name] = self._fact(name, shape, kind, start + offset)
        return GgufHeader(self._file, metadata, tuple(facts.values()))

    def _beginning(self) -> tuple[int, int]:
        """(number of tensors, number of values)."""
        magic = self._content[:4]
        if magic == _GIT_LFS:
            raise CheckpointError(
                f"{self._file} is a Git LFS pointer of {self._size} bytes, not the weights; run `git lfs pull` there"
            )
        if magic != _MAGIC:
            _refuse(self._file, f"it begins with {magic!r}, a GGUF file begins with {_MAGIC!r}")
        self._place = 4
        version = self._number("I")
        if version not in _VERSIONS:
            raise UnsupportedModel(
                f"{self._file} is GGUF version {version} or of a big-endian machine; versions 2 and 3, little-endian, "
                f"are read: fetch a newer file of the model"
            )
        return self._number("Q"), self._number("Q")

    def _value(self, name: str, kind: int) -> GgufValue:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            _refuse(self._file, f"the value {name!r} has the unknown type {kind}")
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            self._room(8 * count, f"{count:,} strings of {name!r}")
            return self._strings(count)
        if kind not in _SCALARS:
            _refuse(self._file, f"the array {name!r} has items of the type {kind}, which is not known")
        return self._numbers(name, _SCALARS[kind], count)

    def _numbers(self, name: str, code: str, count: int) -> Sequence[int] | Sequence[float] | Sequence[bool]:
        nbytes = struct.calcsize(f"<{code}") * count
        self._room(nbytes, f"{count:,} numbers of {name!r}")
        items = array("B" if code == "?" else code)
        items.frombytes(self._content[self._place : self._place + nbytes])
        if sys.byteorder == "big":
            items.byteswap()
        self._place += nbytes
        return items

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """(name, shape, number of the type, offset) of one tensor."""
        name, dimensions = self._string(), self._number("I")
        if not name.isprintable():
            _refuse(self._file, f"a tensor has the name {name!r:.80}")
        if dimensions > _MOST_DIMENSIONS:
            _refuse(self._file, f"tensor {name!r} has {dimensions} dimensions, at most {_MOST_DIMENSIONS} are possible")
        sizes = tuple(self._number("Q") for _ in range(dimensions))
        return name, sizes[::-1] or (1,), self._number("I"), self._number("Q")

    def _fact(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> TensorFact:
        if kind not in GGUF_TYPES:
            raise UnsupportedModel(
                f"{self._file}: tensor {name} has the GGUF type number {kind}, which is not known; take the model's "
                f"file of the type Q4_K_M"
            )
        if 0 in shape:
            _refuse(self._file, f"tensor {name!r} has the shape {list(shape)}, which holds nothing")
        type_name, numbers, size = GGUF_TYPES[kind]
        if shape[-1] % numbers:
            _refuse(
                self._file, f"tensor {name!r} has rows of {shape[-1]:,} numbers, {type_name} has blocks of {numbers}"
            )
        nbytes = math.prod(shape) // numbers * size
        if offset + nbytes > self._size:
            _refuse(
                self._file,
                f"the file is cut short: tensor {name!r} of {type_name} and shape {list(shape)} ends at byte "
                f"{offset + nbytes:,}, the file has {self._size:,}",
            )
        return TensorFact(name, type_name, shape, self._file, offset, nbytes)

    def _alignment(self, metadata: Mapping[str, GgufValue]) -> int:
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if isinstance(alignment, int) and 0 < alignment <= _LARGEST_ALIGNMENT and not alignment & (alignment - 1):
            return alignment
        _refuse(self._file, f"general.alignment is {alignment!r:.60}, expected a power of two")

    def _number(self, code: str) -> int:
        """A natural number."""
        return int(self._scalar(code))

    def _scalar(self, code: str) -> int | float | bool:
        size = struct.calcsize(f"<{code}")
        self._room(size, "a number")
        value: int | float | bool = struct.unpack_from(f"<{code}", self._content, self._place)[0]
        self._place += size
        return value

    def _string(self) -> str:
        length = self._number("Q")
        self._room(length, f"a string of {length:,} bytes")
        start, self._place = self._place, self._place + length
        return self._content[start : self._place].decode(errors="replace")

    def _strings(self, count: int) -> list[str]:
        """As `_string`, again and again: of a vocabulary there are hundreds of thousands."""
        content, place, limit, length_at = self._content, self._place, self._limit, struct.Struct("<Q").unpack_from
        strings: list[str] = []
        for _ in range(count):
            start = place + 8
            place = start + length_at(content, place)[0] if start <= limit else limit + 1
            if place > limit:
                self._room(limit + 1, f"the string {len(strings):,} of {count:,}")
            strings.append(content[start:place].decode(errors="replace"))
        self._place = place
        return strings

    def _room(self, nbytes: int, what: str) -> None:
        if self._place + nbytes > self._limit:
            _refuse(
                self._file,
                f"the header is cut short or longer than {_LONGEST_HEADER:,} bytes: at byte {self._place:,} of "
                f"{self._size:,} begins {what}",
            )


def _round_up(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


def _refuse(file: str, flaw: str) -> NoReturn:
    raise CheckpointError(f"{file} is damaged: {flaw}. Fetch the file again")
