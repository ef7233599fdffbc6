"""Pieces of a checkpoint in memory: where a disk reader puts their bytes, and tensors that are views of them.

Legend: a piece's buffer is `nbytes` bytes at any page-aligned place of an arena; extents fill it, places index it.
"""

import torch

from windlass.errors import CheckpointError
from windlass.facts.extent import Extent
from windlass.facts.number_types import TORCH_NAMES
from windlass.facts.piece import Piece, round_up
from windlass.facts.tensor_fact import TensorFact
from windlass.memory.accelerator import DeviceMemory
from windlass.memory.arena import Arena

# Older torch lacks the youngest of them.
TORCH_DTYPES: dict[str, torch.dtype] = {
    name: vars(torch)[kind] for name, kind in TORCH_NAMES.items() if kind in vars(torch)
}


def piece_reads(piece: Piece, arena: Arena, base: int) -> list[tuple[Extent, memoryview]]:
    """What to ask a DiskReader for so that the piece's buffer begins at byte `base` of the arena."""
    return [(extent, arena.view(base + at, round_up(extent.nbytes))) for extent, at in piece.extents]


def tensor_view(arena: Arena | DeviceMemory, base_offset: int, piece: Piece, fact: TensorFact) -> torch.Tensor:
    """The tensor `fact` of the piece whose buffer begins at `base_offset` of the arena, in its own dtype and shape.

    Shares the arena's bytes; only data at an offset that does not suit the item size is copied.
    Raises CheckpointError for a dtype that this torch lacks.
    """
    dtype, shape = torch_dtype(fact), _torch_shape(fact)
    offset = base_offset + piece.places[fact.name]
    if offset % dtype.itemsize == 0:
        return arena.tensor(offset, dtype, shape)
    return arena.tensor(offset, torch.uint8, (fact.nbytes,)).clone().view(dtype).view(shape)


def torch_dtype(fact: TensorFact) -> torch.dtype:
    """The torch dtype of a tensor in a checkpoint. Raises CheckpointError where this torch has none."""
    if fact.dtype not in TORCH_DTYPES:
        raise CheckpointError(
            f"tensor {fact.name!r} of {fact.file} is {fact.dtype}, which torch {torch.__version__} cannot hold; "
            f"it can hold {', '.join(TORCH_DTYPES)}: update torch or use another version of the checkpoint"
        )
    return TORCH_DTYPES[fact.dtype]


def _torch_shape(fact: TensorFact) -> tuple[int, ...]:
    """Torch packs two 4-bit numbers in an item, so the last dimension counts pairs."""
    return (*fact.shape[:-1], fact.shape[-1] // 2) if fact.dtype == "F4" else fact.shape
