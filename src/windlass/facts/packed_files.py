"""The files of a packed checkpoint, laid out to the byte before anything is packed, and the pieces of the work.

Because every byte's place is known from the headers of the source alone, pieces can be written in any order, and a job
that was killed goes on inside a file. Headers are padded, so that data begins at a block of the disk.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from windlass.facts.own_checkpoint import COLUMNS, ROWS, blocks_shape
from windlass.facts.piece import round_up
from windlass.facts.tensor_fact import TensorFact
from windlass.units import MIB

PARTIAL = ".partial"
"""Ends the name of the folder that a packing job works in, until it is complete."""
BEGUN = "windlass-packing.jsonl"
"""The job's journal there."""
MOST_FILE_BYTES = 5 * 10**9
MOST_PIECE_BYTES = 16 * MIB
"""Of the source, read at once; more where 16 rows have more."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor to be written: a copy of `source`, or its blocks. `offset` counts from the start of the file."""

    source: TensorFact
    packed: bool
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A safetensors file: `header` is all that comes before the data."""

    name: str
    header: bytes
    tensors: tuple[OutputTensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class PackPiece:
    """Bytes of the source to be packed as (rows, columns), or copied where `rows` is 0, and where they go."""

    tensor: str
    dtype: str
    file: str
    offset: int
    nbytes: int
    rows: int
    columns: int
    target: str
    target_offset: int
    target_nbytes: int
    expert: int | None = None


def output_files(
    tensors: Sequence[TensorFact], packed: Iterable[str], bits: int, most: int = MOST_FILE_BYTES
) -> tuple[OutputFile, ...]:
    """The files that hold `tensors`, those of the names `packed` as blocks, in the order of the source's bytes."""
    names = set(packed)
    ordered = sorted(tensors, key=lambda fact: (fact.file, fact.offset))
    outputs = [_output(fact, fact.name in names, bits) for fact in ordered]
    groups = list(_groups(outputs, most))
    if len(groups) == 1:
        return (_file("model.safetensors", groups[0]),)
    return tuple(
        _file(f"model-{number:05d}-of-{len(groups):05d}.safetensors", group) for number, group in enumerate(groups, 1)
    )


def pack_pieces(files: Sequence[OutputFile]) -> tuple[PackPiece, ...]:
    """The work, in the order of the files."""
    return tuple(piece for file in files for tensor in file.tensors for piece in _pieces(file.name, tensor))


def tensor_facts(files: Sequence[OutputFile], folder: Path) -> dict[str, TensorFact]:
    """What the headers of the files say, by name, once they are in `folder`."""
    return {
        tensor.source.name: TensorFact(
            tensor.source.name, tensor.dtype, tensor.shape, str(folder / file.name), tensor.offset, tensor.nbytes
        )
        for file in files
        for tensor in file.tensors
    }


def parts_of(piece: PackPiece, start: int, stop: int, most: int) -> Iterator[PackPiece]:
    """Pieces of at most `most` bytes of the source, or of 16 rows, whose targets cover bytes start .. stop of the file.

    Blocks are made 16 rows at a time, so the first may begin before `start` and the last end behind `stop`.
    """
    if not piece.rows:
        first, last = max(start, piece.target_offset), min(stop, piece.target_offset + piece.target_nbytes)
        for at in range(first, last, most):
            moved, size = at - piece.target_offset, min(most, last - at)
            yield replace(piece, offset=piece.offset + moved, nbytes=size, target_offset=at, target_nbytes=size)
        return
    strips = -(-piece.rows // ROWS)
    row_bytes, strip_bytes = piece.nbytes // piece.rows, piece.target_nbytes // strips
    first = max(0, start - piece.target_offset) // strip_bytes
    last = min(strips, -(-(stop - piece.target_offset) // strip_bytes))
    step = max(1, most // (ROWS * row_bytes))
    for strip in range(first, last, step):
        count, above = min(step, last - strip), strip * ROWS
        rows = min(piece.rows, above + count * ROWS) - above
        yield replace(
            piece,
            offset=piece.offset + above * row_bytes,
            nbytes=rows * row_bytes,
            rows=rows,
            target_offset=piece.target_offset + strip * strip_bytes,
            target_nbytes=count * strip_bytes,
        )


def padded_shapes(files: Sequence[OutputFile]) -> dict[str, list[int]]:
    """The true (N, K) of packed tensors whose blocks hold more rows or columns, for the config."""
    return {
        tensor.source.name: list(tensor.source.shape[-2:])
        for file in files
        for tensor in file.tensors
        if tensor.packed and (tensor.source.shape[-2] % ROWS or tensor.source.shape[-1] % COLUMNS)
    }


def index_json(files: Sequence[OutputFile]) -> dict[str, object]:
    """What model.safetensors.index.json says."""
    total = sum(tensor.nbytes for file in files for tensor in file.tensors)
    names = {tensor.source.name: file.name for file in files for tensor in file.tensors}
    return {"metadata": {"total_size": total}, "weight_map": names}


def _output(fact: TensorFact, packed: bool, bits: int) -> OutputTensor:
    if not packed:
        return OutputTensor(fact, False, fact.dtype, fact.shape, fact.nbytes)
    shape = blocks_shape(fact.shape, bits)
    return OutputTensor(fact, True, "U8", shape, prod(shape))


def _groups(outputs: Sequence[OutputTensor], most: int) -> Iterator[list[OutputTensor]]:
    """Cut where a file would grow past `most`."""
    group: list[OutputTensor] = []
    size = 0
    for output in outputs:
        if group and size + output.nbytes > most:
            yield group
            group, size = [], 0
        group.append(output)
        size += output.nbytes
    yield group


def _file(name: str, outputs: Sequence[OutputTensor]) -> OutputFile:
    """Widest numbers first: then each tensor begins where its numbers may be used as they lie."""
    entries: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
    ordered = sorted(outputs, key=lambda output: _alignment(output), reverse=True)
    at, places = 0, []
    for output in ordered:
        entries[output.source.name] = {
            "dtype": output.dtype,
            "shape": list(output.shape),
            "data_offsets": [at, at + output.nbytes],
        }
        places.append(at)
        at += output.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (round_up(8 + len(text)) - 8 - len(text))
    header = len(text).to_bytes(8, "little") + text
    tensors = tuple(
        OutputTensor(o.source, o.packed, o.dtype, o.shape, o.nbytes, len(header) + place)
        for o, place in zip(ordered, places, strict=True)
    )
    return OutputFile(name, header, tensors)


def _alignment(output: OutputTensor) -> int:
    """0 for a tensor of odd size, which would put those behind it at odd places; all others may stand in any order."""
    return 0 if output.nbytes % 8 else 1


def _pieces(target: str, tensor: OutputTensor) -> Iterator[PackPiece]:
    if not tensor.packed:
        yield from _copies(target, tensor)
        return
    fact = tensor.source
    *experts, rows, columns = fact.shape
    count = prod(experts)
    step, out_step = fact.nbytes // max(1, count), tensor.nbytes // max(1, count)
    row_bytes, block_row = step // rows, out_step // -(-rows // ROWS)
    at_once = max(ROWS, MOST_PIECE_BYTES // row_bytes // ROWS * ROWS)
    for expert in range(count):
        for start in range(0, rows, at_once):
            stop = min(rows, start + at_once)
            yield PackPiece(
                tensor=fact.name,
                dtype=fact.dtype,
                file=fact.file,
                offset=fact.offset + expert * step + start * row_bytes,
                nbytes=(stop - start) * row_bytes,
                rows=stop - start,
                columns=columns,
                target=target,
                target_offset=tensor.offset + expert * out_step + start // ROWS * block_row,
                target_nbytes=-(-(stop - start) // ROWS) * block_row,
                expert=expert if experts else None,
            )


def _copies(target: str, tensor: OutputTensor) -> Iterator[PackPiece]:
    fact = tensor.source
    for start in range(0, fact.nbytes, MOST_PIECE_BYTES):
        size = min(MOST_PIECE_BYTES, fact.nbytes - start)
        place = tensor.offset + start
        yield PackPiece(fact.name, fact.dtype, fact.file, fact.offset + start, size, 0, 0, target, place, size)
