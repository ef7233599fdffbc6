"""Pieces of a checkpoint on their way to be packed: how they are read into an arena, and what they are there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from windlass.errors import CheckpointError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.extent import Extent
from windlass.facts.packed_files import PackPiece
from windlass.facts.packing import Packing
from windlass.facts.piece import BLOCK, round_up
from windlass.kernels.quantiser import Packed, packed, refuse_no_numbers
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import TORCH_DTYPES
from windlass.units import MIB

DISK = DiskProfile(0.0, 8 * MIB, 4, True, "read ahead of the packing")
_CHECKED = ("F64", "F32", "F16", "BF16")
"""Types, as safetensors names them, that have NaN and that torch looks for it in."""


def room_for(piece: PackPiece) -> int:
    """Bytes that a piece takes in an arena, wherever in a block of the disk it begins."""
    return round_up(piece.nbytes + BLOCK)


def read_of(piece: PackPiece, arena: Arena, at: int) -> tuple[Extent, memoryview]:
    """What to ask a DiskReader for; `at` is a multiple of 4096."""
    lead = piece.offset % BLOCK
    extent = Extent(piece.file, piece.offset - lead, piece.nbytes + lead)
    return extent, arena.view(at, round_up(extent.nbytes))


def raw_bytes(piece: PackPiece, arena: Arena, at: int) -> torch.Tensor:
    """The bytes that have arrived at `at`, uint8 (nbytes)."""
    return arena.tensor(at + piece.offset % BLOCK, torch.uint8, (piece.nbytes,))


def packed_piece(piece: PackPiece, raw: torch.Tensor, packing: Packing, inputs: torch.Tensor | None) -> Packed:
    """The blocks of a piece's bytes; see quantiser.packed. Raises CheckpointError for numbers that are not finite."""
    with _named(piece):
        return packed(_numbers(piece, raw).view(piece.rows, piece.columns), packing, inputs)


def check_copied(piece: PackPiece, raw: torch.Tensor) -> None:
    """Raises CheckpointError for NaN among a piece's bytes, which are to be kept as they are."""
    if piece.dtype in _CHECKED:
        with _named(piece):
            refuse_no_numbers(_numbers(piece, raw))


def _numbers(piece: PackPiece, raw: torch.Tensor) -> torch.Tensor:
    """The numbers of a piece's bytes, in one row."""
    dtype = TORCH_DTYPES[piece.dtype]
    aligned = raw if raw.data_ptr() % dtype.itemsize == 0 else raw.clone()
    return aligned.view(dtype)


@contextmanager
def _named(piece: PackPiece) -> Iterator[None]:
    """Has an error say which tensor of which file it is about."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{piece.file}: tensor {piece.tensor}: {error}") from error
