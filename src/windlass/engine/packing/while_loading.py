"""A model that is packed while it is loaded: where all of it stays in memory, nobody needs its packed files.

Its facts are those of the copy that `windlass quantize` would write, to the byte. What is asked of those files is
packed then and there, a few rows of a matrix at a time. A plan that leaves weights on disk has the copy made first.
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from windlass.engine.packing.folder import finished
from windlass.engine.packing.pack import quantize
from windlass.engine.packing.source import DISK, packed_piece, raw_bytes, read_of, room_for
from windlass.engine.packing.work import PackingWork
from windlass.engine.unwritten_files import files_on_disk
from windlass.facts.packed_files import OutputFile, PackPiece, parts_of
from windlass.facts.plan import Plan
from windlass.facts.progress import Progress
from windlass.facts.weight_group import WeightGroup
from windlass.kernels.quantiser import PACKINGS
from windlass.memory.arena import Arena
from windlass.memory.disk import DiskReader
from windlass.memory.process_memory import return_free_memory
from windlass.units import MIB, format_bytes

LOG = logging.getLogger("windlass")

PART_BYTES = 2 * MIB
"""Of the source, packed at once by each thread; more where 16 rows have more."""
_READS = replace(DISK, depth=2)


class PackedWhileLoading:
    """The files of `work`, which are at its target once `store` had to have them written."""

    def __init__(self, work: PackingWork, on_progress: Callable[[Progress], None]) -> None:
        self._work, self._on_progress = work, on_progress
        self._files: dict[str, OutputFile] = {str(work.target / file.name): file for file in work.files}
        self._pieces: dict[str, list[PackPiece]] = {
            path: sorted((piece for piece in work.pieces if piece.target == file.name), key=_place)
            for path, file in self._files.items()
        }
        self._written = False

    def holds(self, file: str) -> bool:
        """Whether the bytes of `file` are packed and not read."""
        return file in self._files and not self._written

    def fill(self, file: str, offset: int, target: memoryview) -> None:
        """Packs the bytes of `file` from `offset` on; `target` says how many. May be called by several threads.

        Raises CheckpointError for weights that are not finite, StorageError where the source cannot be read.
        """
        header = self._files[file].header[offset : offset + len(target)]
        target[: len(header)] = header
        parts = list(self._parts(file, offset + len(header), offset + len(target)))
        if not parts:
            return
        out, size = np.frombuffer(target, dtype=np.uint8), max(map(room_for, parts))
        arena, reader = Arena(2 * size), DiskReader(_READS)
        try:
            # One is read while the one before it is packed.
            tickets = [reader.submit([read_of(parts[0], arena, 0)])]
            for number, part in enumerate(parts):
                if number + 1 < len(parts):
                    tickets.append(reader.submit([read_of(parts[number + 1], arena, (number + 1) % 2 * size)]))
                tickets[number].wait()
                self._lay(part, arena, number % 2 * size, out, offset)
        finally:
            reader.close()
            arena.close()

    def lines(self, groups: Sequence[WeightGroup], plan: Plan) -> list[str]:
        """Nothing: `store` says what it does, to whoever loads the model."""
        return []

    def check(self, groups: Sequence[WeightGroup], plan: Plan) -> None:
        """Nothing stands against a copy but a full disk, which its making finds before it begins."""

    def store(self, groups: Sequence[WeightGroup], plan: Plan) -> None:
        """Has the copy made where `plan` leaves weights on disk; uses one that is there. Raises StorageError."""
        work = self._work
        self._written = work.target.is_dir() and finished(work.target) is not None
        if self._written:
            return
        if not files_on_disk(groups, plan):
            LOG.warning(
                "packing %s as %s while it is loaded; all of it stays in memory, so that no copy is kept",
                work.source, work.to,
            )  # fmt: skip
            return
        LOG.warning(
            "packing %s as %s, once: the copy of %s is kept in %s; remove that folder when it is no longer wanted",
            work.source, work.to, format_bytes(work.nbytes), work.target,
        )  # fmt: skip
        quantize(work.source, work.target, work.to, self._on_progress)
        return_free_memory()  # the plan that is about to be loaded counts on it
        self._written = True

    def remove(self) -> None:
        """Nothing: a copy is there for other runs too."""

    def _parts(self, file: str, start: int, stop: int) -> Iterator[PackPiece]:
        """Which hold the bytes start .. stop of `file`."""
        pieces = self._pieces[file]
        for piece in pieces[max(0, bisect_right(pieces, start, key=_place) - 1) :]:
            if piece.target_offset >= stop:
                return
            yield from parts_of(piece, start, stop, PART_BYTES)

    def _lay(self, part: PackPiece, arena: Arena, at: int, out: NDArray[np.uint8], offset: int) -> None:
        """Puts what has come of a part where it belongs in `out`, which begins at `offset` of the file."""
        made = raw_bytes(part, arena, at)
        if part.rows:
            made = packed_piece(part, made, PACKINGS[self._work.to], None).blocks.view(-1)
        begin = part.target_offset - offset
        first, last = max(0, begin), min(len(out), begin + part.target_nbytes)
        out[first:last] = made.numpy()[first - begin : last - begin]


def _place(piece: PackPiece) -> int:
    return piece.target_offset
