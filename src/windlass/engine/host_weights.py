"""Weights that rest in host memory beside a device: read once, and carried over the link each pass.

They lie there as the checkpoint has them, a slice's pieces together, so that a slice is one copy; experts and rows of
the embedding, which are asked for one by one, lie there ready for use.
"""

from collections.abc import Callable, Sequence

import torch

from windlass.facts.parameter_source import ParameterSource
from windlass.facts.piece import Piece, round_up
from windlass.facts.weight_group import WeightGroup
from windlass.memory.accelerator import Accelerator
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import piece_reads
from windlass.memory.disk import DiskReader
from windlass.model.packed_weight import PackedWeight
from windlass.planner.residency import as_built

Built = Callable[[ParameterSource], torch.Tensor]


class HostWeights:
    """`pieces` and `offsets` give, by slice, what rests here and where; `alone` the rest by source key."""

    def __init__(
        self, parts: Sequence[WeightGroup], pieces: Sequence[Piece | None], singles: Sequence[ParameterSource]
    ) -> None:
        self.parts, self.pieces, self._singles = parts, list(pieces), singles
        self.offsets: list[int] = []
        end = 0
        for piece in self.pieces:
            self.offsets.append(end)
            end += piece.nbytes if piece is not None else 0
        self._alone_at: dict[str, int] = {}
        for source in singles:
            self._alone_at[source.key] = end
            end += as_built(source)
        self.arena = Arena(end) if end else None
        self.alone: dict[str, torch.Tensor] = {}

    def load(self, reader: DiskReader, accelerator: Accelerator, build: Built, on_bytes: Callable[[int], None]) -> None:
        """Reads everything. `build` makes one source ready. `on_bytes` hears of bytes as they come."""
        if self.arena is None:
            return
        for piece, offset in zip(self.pieces, self.offsets, strict=True):
            if piece is not None:
                reader.read(piece_reads(piece, self.arena, offset))
                on_bytes(piece.nbytes)
        for source in self._singles:
            built = build(source)
            self.alone[source.key] = self._placed(built, self._alone_at[source.key])
            on_bytes(source.nbytes)
        accelerator.pin(self.arena)

    def _placed(self, built: torch.Tensor, offset: int) -> torch.Tensor:
        """A copy of a weight at `offset` of the arena, a packed one part after part."""
        assert self.arena is not None
        if not isinstance(built, PackedWeight):
            return self.arena.tensor(offset, built.dtype, built.shape).copy_(built)
        places: dict[int, torch.Tensor] = {}
        for matrix in built.matrices:
            for part in matrix.parts.values():
                places[id(part)] = self.arena.tensor(offset, part.dtype, part.shape).copy_(part)
                offset += round_up(part.nbytes)
        return built.moved(lambda part: places[id(part)])

    def close(self, accelerator: Accelerator) -> None:
        """Frees the memory, once no copy is in flight."""
        self.alone.clear()
        if self.arena is not None and not self.arena.closed:
            accelerator.unpin(self.arena)
            self.arena.close()
