"""A matrix whose numbers are packed, in memory: what a product takes in place of a plain weight.

Legend: N rows (outputs), K columns (inputs), n rows of a tile.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from windlass.facts.packing import Packing


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """(N, K) numbers of one packing; `parts` are the bytes by role, views of wherever they lie. See PackedTensor."""

    packing: Packing
    shape: tuple[int, int]
    parts: Mapping[str, torch.Tensor]
    heads: int = 0

    @property
    def device(self) -> torch.device:
        """Where the bytes lie."""
        return next(iter(self.parts.values())).device

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())
