"""Blocks of random numbers in Windlass's own packings, for weights that are made up: packed without a packer.

They are what the packer would make of normal numbers, near enough for every kernel to do its ordinary work: codes fall
off to both sides, scales differ in size and sign, offsets are small, and all codebooks occur.

Legend: B blocks of 16 rows by 64 columns.
"""

import torch

from windlass.facts.own_checkpoint import COLUMNS, ROWS
from windlass.facts.packing import Packing
from windlass.kernels.encodings.blocks import join, unpack

DRAWN = 4093
"""Blocks. A prime: a matrix that repeats them has no two rows of blocks alike, whatever its width."""

_SAMPLE = 64
_CODES = {"int4": (7.5, 2.5, 0, 15), "int8": (0.0, 42.0, -128, 127)}
"""Mean and standard deviation of the codes, the least and the largest: a group's largest number lies near three."""
_OFFSET, _JITTER = 0.1, 0.1
"""Standard deviation of offsets, of that of the numbers, and of scales, of their mean."""


def drawn_blocks(packing: Packing, spread: float, seed: int) -> torch.Tensor:
    """uint8 (B, block bytes) whose numbers have mean 0 and the standard deviation `spread`; the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    mean, deviation, least, most = _CODES[packing.name]
    drawn = torch.empty(DRAWN, 1, ROWS, COLUMNS).normal_(mean, deviation, generator=generator)
    codes = drawn.round_().clamp_(least, most).to(torch.int16)
    offsets, jitter, side = torch.empty(3, DRAWN, 1, ROWS).normal_(generator=generator)
    offsets = (offsets * _OFFSET * spread).bfloat16()
    # The sign of a scale is drawn too: it mirrors the codebooks, which are not even.
    scales = (1 + _JITTER * jitter).clamp_min(0.5) * side.sign()
    scales *= spread / _deviation(packing, codes[:_SAMPLE], scales[:_SAMPLE], offsets[:_SAMPLE])
    return join(packing, codes, scales.bfloat16(), offsets).view(DRAWN, -1)


def _deviation(packing: Packing, codes: torch.Tensor, scales: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The standard deviation of a few blocks' numbers by scales of about 1; offsets are as nothing beside them."""
    blocks = join(packing, codes, scales.bfloat16(), offsets)
    shape = (len(blocks) * ROWS, COLUMNS)
    return unpack(packing, {"blocks": blocks}, shape, 0, shape[0], torch.float32).std()
