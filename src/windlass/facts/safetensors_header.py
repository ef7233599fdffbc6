"""Reads the header of a safetensors file by hand, because planning must not import torch or touch the data.

The format (huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON object of
`name: {dtype, shape, data_offsets}` with offsets relative to the end of the header, then the data without holes.
A header is foreign input: whatever is wrong with it becomes a CheckpointError that names the file.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, TypeGuard

from windlass.errors import CheckpointError
from windlass.facts.tensor_fact import TensorFact

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

# The safetensors library refuses longer headers too.
_LONGEST_HEADER = 100_000_000
_GIT_LFS = b"version "


def read_header(path: str | Path) -> tuple[TensorFact, ...]:
    """The tensors of a safetensors file, in the order of their bytes.

    Raises CheckpointError if the file cannot be read, is cut short, or its header is not sound.
    """
    file = os.path.abspath(path)
    try:
        with open(file, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            prefix = source.read(8)
            return parse_header(file, prefix + source.read(header_bytes(file, prefix, size) - 8), size)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}; check the path and its permissions") from error


def parse_header(file: str, beginning: bytes, file_size: int) -> tuple[TensorFact, ...]:
    """The tensors of a file, in the order of their bytes, from the `beginning` that holds its header.

    `file` is its path or address. Raises CheckpointError if the file is cut short, or its header is not sound.
    """
    header, data_start = _read_json(file, beginning, file_size)
    facts = sorted(
        (_parse_entry(file, name, entry, data_start) for name, entry in header.items() if name != "__metadata__"),
        key=lambda fact: (fact.offset, fact.end),
    )
    _check_layout(file, facts, data_start, file_size)
    return tuple(facts)


def header_bytes(file: str, prefix: bytes, file_size: int) -> int:
    """How many bytes of a file are its header, by its first 8. Raises CheckpointError for what cannot be one."""
    length = int.from_bytes(prefix[:8], "little")
    _check_length(file, prefix[:8], length, file_size)
    return 8 + length


def _read_json(file: str, beginning: bytes, file_size: int) -> tuple[dict[str, object], int]:
    """(the header, where the data begins)."""
    data_start = header_bytes(file, beginning, file_size)
    try:
        header = json.loads(beginning[8:data_start], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _refuse(file, f"the header is not JSON ({error})")
    if not isinstance(header, dict):
        _refuse(file, f"the header must be a JSON object, found {type(header).__name__}")
    return header, data_start


def _check_length(file: str, prefix: bytes, length: int, size: int) -> None:
    if prefix == _GIT_LFS:
        raise CheckpointError(f"{file} is a Git LFS pointer of {size} bytes, not the weights; run `git lfs pull` there")
    if len(prefix) < 8:
        _refuse(file, f"the file has {size} bytes, a header needs at least 8")
    if length > _LONGEST_HEADER:
        _refuse(file, f"the header says it has {length:,} bytes, at most {_LONGEST_HEADER:,} are allowed")
    if 8 + length > size:
        _refuse(
            file, f"the file is cut short inside its header: expected at least {8 + length:,} bytes, found {size:,}"
        )


def _unique(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} occurs twice")
        found[name] = value
    return found


def _parse_entry(file: str, name: str, entry: object, data_start: int) -> TensorFact:
    if not isinstance(entry, dict):
        _refuse(file, f"tensor {name!r} is described by {entry!r}, not by an object")
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        _refuse(file, f"tensor {name!r} has the unknown dtype {dtype!r}; known are {', '.join(DTYPE_BITS)}")
    if not _naturals(shape):
        _refuse(file, f"tensor {name!r} has the shape {shape!r}, expected a list of sizes")
    if not _naturals(span) or len(span) != 2 or span[0] > span[1]:
        _refuse(file, f"tensor {name!r} has the offsets {span!r}, expected [begin, end] with begin <= end")
    begin, end = span
    expected = math.prod(shape) * DTYPE_BITS[dtype]
    if expected != 8 * (end - begin):
        _refuse(
            file,
            f"tensor {name!r} of {dtype} and shape {shape} needs {expected / 8:,.15g} bytes, "
            f"its offsets give it {end - begin:,}",
        )
    return TensorFact(name, dtype, tuple(shape), file, data_start + begin, end - begin)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(file: str, facts: list[TensorFact], data_start: int, file_size: int) -> None:
    """Tensors must follow each other without overlap or hole, and the file must end with the last of them."""
    end = data_start
    for fact in facts:
        if fact.offset != end:
            flaw = "overlaps the tensor before it" if fact.offset < end else "leaves a hole before it"
            _refuse(file, f"tensor {fact.name!r} {flaw}: it begins at byte {fact.offset:,}, expected {end:,}")
        end = fact.end
    if end > file_size:
        _refuse(file, f"the file is cut short: expected {end:,} bytes, found {file_size:,}")
    if end < file_size:
        _refuse(file, f"the file is longer than its header says: expected {end:,} bytes, found {file_size:,}")


def _refuse(file: str, flaw: str) -> NoReturn:
    raise CheckpointError(f"{file} is damaged: {flaw}. Fetch or save the file again")
