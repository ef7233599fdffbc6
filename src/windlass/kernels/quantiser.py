"""Makes packed matrices of weights: Windlass's own blocks, by the packer in C where there is one, else by torch.

Both give the same bytes, whoever calls and by however many threads.

Legend: N rows, K columns; Bn = ceil(N / 16) and Bk = ceil(K / 64) blocks along them.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from windlass.errors import CheckpointError
from windlass.facts.packing import Packing
from windlass.kernels.block_fit import ROUNDS, STARTS, fitted_blocks
from windlass.kernels.encodings.blocks import COLUMNS, INT4, INT8, block_shape, codebooks, unpack
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.packer import KINDS, NativePacker, PackingJob, native_packer

PACKINGS = {"int4": INT4, "int8": INT8}

LEAST_IMPORTANCE = 1e-3
"""Of the mean: a column that calibration never saw still counts for something."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Blocks, uint8 (Bn, Bk, block bytes), the squared error they leave and the squares of the weights, both summed.

    Where columns have an importance, both sums are weighted by it.
    """

    blocks: torch.Tensor
    error: float
    power: float


def packed(weights: torch.Tensor, packing: Packing, importance: torch.Tensor | None = None) -> Packed:
    """Packs weights (N, K), on the host, with the importance of each column, float (K).

    Raises CheckpointError for weights that are not finite.
    """
    packer = native_packer()
    share = column_importance(weights.shape[1], importance)
    if isinstance(packer, Missing):
        return packed_by_torch(weights, packing, share)
    return packed_by_c(packer, weights, packing, share)


def packer_name() -> str:
    """Who packs on this machine, for people."""
    packer = native_packer()
    return f"plain torch, since {packer.reason}" if isinstance(packer, Missing) else "native packer"


def column_importance(columns: int, importance: torch.Tensor | None) -> torch.Tensor:
    """float32 (Bk * 64): 1 on the average, zero where there is no column."""
    share = torch.ones(columns) if importance is None else importance.float()
    mean = share.mean()
    share = share / mean if mean > 0 and torch.isfinite(mean) else torch.ones(columns)
    return functional.pad(share.clamp_min(LEAST_IMPORTANCE), (0, -columns % COLUMNS)).contiguous()


def packed_by_torch(weights: torch.Tensor, packing: Packing, share: torch.Tensor) -> Packed:
    """`share` is what `column_importance` gives."""
    wrong = int((~torch.isfinite(weights)).sum())
    if wrong:
        raise _not_finite(wrong)
    blocks = fitted_blocks(weights, packing, share)
    dense = unpack(packing, {"blocks": blocks}, tuple(weights.shape), 0, len(weights), torch.float32)
    share, weights = share[: weights.shape[1]].double(), weights.double()
    return Packed(blocks, float(((dense - weights) ** 2 * share).sum()), float((weights**2 * share).sum()))


def packed_by_c(packer: NativePacker, weights: torch.Tensor, packing: Packing, share: torch.Tensor) -> Packed:
    """`share` is what `column_importance` gives."""
    rows, columns = weights.shape
    weights = weights if weights.dtype in KINDS else weights.float()
    weights = weights if weights.stride(1) == 1 else weights.contiguous()
    blocks = torch.empty(block_shape(packing, rows, columns), dtype=torch.uint8)
    books, starts, sums = codebooks(), torch.tensor(STARTS[packing.name]), torch.zeros(2, dtype=torch.float64)
    wrong = packer.pack(
        PackingJob(
            weights.data_ptr(), share.data_ptr(), books.data_ptr(), starts.data_ptr(), blocks.data_ptr(),
            sums.data_ptr(), KINDS[weights.dtype], rows, columns, weights.stride(0), packing.bits, len(starts),
            ROUNDS[packing.name],
        )
    )  # fmt: skip
    if wrong:
        raise _not_finite(wrong)
    return Packed(blocks, *sums.tolist())


def _not_finite(count: int) -> CheckpointError:
    return CheckpointError(
        f"{count:,} weights are infinite or no numbers, which cannot be packed; fetch or save the checkpoint again"
    )
