"""Reads single rows of a table from disk, so that an embedding need not be held in memory to look up a few tokens.

Legend: table (V, D) on disk, indices n of its V rows, out (n, D). Rows that lie close are read as one range; all
ranges of a batch are in flight together, and one batch is read while the one before it is copied out.
"""

from collections.abc import Iterator, Sequence

import torch

from windlass.facts.extent import Extent
from windlass.facts.piece import BLOCK, round_up
from windlass.facts.tensor_fact import TensorFact
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import torch_dtype
from windlass.memory.disk import DiskReader
from windlass.memory.ticket import Ticket
from windlass.units import KIB, MIB

# One more read costs as much as about 64 KiB of a longer one: 20 us in the disk, as many here (NVMe, depth 8 to 32).
ROW_GAP = 64 * KIB

# One range of the file, and which rows of out it holds: out row -> byte of the range.
_Range = tuple[Extent, dict[int, int]]


def read_rows(
    reader: DiskReader, fact: TensorFact, indices: Sequence[int], out: torch.Tensor, scratch_limit: int = 32 * MIB
) -> None:
    """Fills `out` (n, D), contiguous, of the table's dtype, with the rows `indices` (n, rising) of `fact` (V, D).

    Takes at most `scratch_limit` bytes besides, or what two single rows need. Raises StorageError.
    """
    _check(fact, indices, out)
    if not indices or not fact.nbytes:
        return
    row = fact.nbytes // fact.shape[0]
    half = max(scratch_limit // 2 // BLOCK * BLOCK, round_up(row) + BLOCK)
    batches = list(_batches(_ranges(fact, indices, row, half), half))
    size = max(sum(round_up(extent.nbytes) for extent, _ in batch) for batch in batches)
    scratch = Arena(size * min(2, len(batches)))
    target = out.view(torch.uint8).numpy().data.cast("B")
    try:
        _read_batches(reader, batches, scratch, size, target, row)
    finally:
        scratch.close()


def _read_batches(
    reader: DiskReader, batches: list[list[_Range]], scratch: Arena, size: int, target: memoryview, row: int
) -> None:
    """Reads into the halves of the scratch in turn; the next batch is asked for before the last is waited for."""
    waiting: tuple[Ticket, list[tuple[_Range, memoryview]]] | None = None
    for number, batch in enumerate(batches):
        placed = _place(batch, scratch, size * (number % 2))
        reads = [(extent, view) for (extent, _), view in placed]
        ticket = reader.submit(reads, name="read embedding rows", urgent=True)
        if waiting is not None:
            _copy_out(*waiting, target, row)
        waiting = ticket, placed
    if waiting is not None:
        _copy_out(*waiting, target, row)


def _place(batch: list[_Range], scratch: Arena, base: int) -> list[tuple[_Range, memoryview]]:
    placed = []
    for extent, rows in batch:
        size = round_up(extent.nbytes)
        placed.append(((extent, rows), scratch.view(base, size)))
        base += size
    return placed


def _copy_out(ticket: Ticket, placed: list[tuple[_Range, memoryview]], target: memoryview, row: int) -> None:
    ticket.wait()
    for (_, rows), view in placed:
        for number, at in rows.items():
            target[number * row : (number + 1) * row] = view[at : at + row]


def _ranges(fact: TensorFact, indices: Sequence[int], row: int, longest: int) -> Iterator[_Range]:
    """The rows as block-aligned ranges of at most `longest` bytes, neighbours together."""
    start = end = -1
    rows: dict[int, int] = {}
    for number, index in enumerate(indices):
        begin = fact.offset + index * row
        if rows and (begin - end > ROW_GAP or round_up(begin + row - start) > longest):
            yield Extent(fact.file, start, end - start), rows
            rows = {}
        if not rows:
            start = begin - begin % BLOCK
        end = begin + row
        rows[number] = begin - start
    yield Extent(fact.file, start, end - start), rows


def _batches(ranges: Iterator[_Range], limit: int) -> Iterator[list[_Range]]:
    """Runs of ranges whose buffers take at most `limit` bytes together."""
    batch: list[_Range] = []
    used = 0
    for extent, rows in ranges:
        size = round_up(extent.nbytes)
        if batch and used + size > limit:
            yield batch
            batch, used = [], 0
        batch.append((extent, rows))
        used += size
    yield batch


def _check(fact: TensorFact, indices: Sequence[int], out: torch.Tensor) -> None:
    assert len(fact.shape) == 2, f"{fact.name} has the shape {fact.shape}, rows need two dimensions"
    assert out.dtype == torch_dtype(fact) and out.is_contiguous(), f"out is {out.dtype}, the table {fact.dtype}"
    assert tuple(out.shape) == (len(indices), fact.shape[1]), f"out is {tuple(out.shape)} for {len(indices)} rows"
    rising = all(a < b for a, b in zip(indices, indices[1:], strict=False))
    inside = not indices or 0 <= indices[0] <= indices[-1] < fact.shape[0]
    assert rising and inside, f"row indices must rise within 0 and {fact.shape[0] - 1}"
