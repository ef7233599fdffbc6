"""Makes packed matrices of weights: Windlass's own blocks, by the packer in C where there is one, else by torch.

Both give the same bytes, whoever calls and by however many threads.

Legend: N rows, K columns; Bn = ceil(N / 16) and Bk = ceil(K / 64) blocks along them.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch.nn import functional

from windlass.errors import CheckpointError
from windlass.facts.own_checkpoint import COLUMNS
from windlass.facts.packing import Packing
from windlass.kernels.block_fit import ROUNDS, STARTS, fitted_blocks
from windlass.kernels.byte_fit import NUDGES, SCALES
from windlass.kernels.encodings.blocks import INT4, INT8, block_shape, codebooks, unpack
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.packer import KINDS, NativePacker, PackingJob, native_packer

PACKINGS = {"int4": INT4, "int8": INT8}

LEAST_IMPORTANCE = 1e-3
"""Of the mean: a column that calibration never saw still counts for something."""

DAMPING = 0.01
"""Of the mean square, added to all squares before errors are passed on."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Blocks, uint8 (Bn, Bk, block bytes), the squared error they leave and the squares of the weights, both summed.

    Where columns have an importance, both sums are weighted by it.
    """

    blocks: torch.Tensor
    error: float
    power: float


@dataclass(frozen=True, slots=True)
class Weighing:
    """What each column counts, float32 (Bk * 64), zero where there is none, and how errors are passed on within a
    group, float32 (Bk, 64, 64), see `passing_shares`; None where they are not."""

    share: torch.Tensor
    passing: torch.Tensor | None = None


def packed(weights: torch.Tensor, packing: Packing, inputs: torch.Tensor | None = None) -> Packed:
    """Packs weights (N, K), on the host. `inputs` says what the columns are multiplied with: the mean square of each,
    float (K), or their mean products within each group, float (Bk, 64, 64), zero where there is no column.

    Raises CheckpointError for weights that are not finite, or so large that blocks cannot hold them.
    """
    packer, weighing = native_packer(), weighing_of(weights.shape[1], inputs)
    if isinstance(packer, Missing):
        return packed_by_torch(weights, packing, weighing)
    return packed_by_c(packer, weights, packing, weighing)


def refuse_no_numbers(weights: torch.Tensor) -> None:
    """Raises CheckpointError where some are NaN; infinities may be meant where weights are kept as they are."""
    wrong = int(torch.isnan(weights).sum())
    if wrong:
        raise _not_finite(wrong)


def weighing_of(columns: int, inputs: torch.Tensor | None) -> Weighing:
    """See `packed`."""
    if inputs is None or inputs.ndim == 1:
        return Weighing(column_importance(columns, inputs))
    squares = inputs.diagonal(dim1=1, dim2=2).flatten()[:columns]
    return Weighing(column_importance(columns, squares), passing_shares(inputs))


def passing_shares(products: torch.Tensor) -> torch.Tensor:
    """products (Bk, 64, 64), mean products of the inputs of a group's columns -> float32 (Bk, 64, 64).

    Row k says which share of the error of column k the columns after it take over, so that the product with such inputs
    changes least (Frantar and others, GPTQ, 2023, within a group): the upper Cholesky factor of the inverse, each row
    over its diagonal. A hundredth of the mean square is added to the squares, lest chance products be trusted.
    """
    squares = products.double().diagonal(dim1=1, dim2=2)
    damping = (DAMPING * squares.sum(1) / (squares > 0).sum(1).clamp_min(1)).clamp_min(1e-30)
    damped = products.double() + torch.diag_embed(damping[:, None].expand_as(squares))
    scale = damping[:, None, None]
    inverse = torch.linalg.inv(damped / scale)
    factor = torch.linalg.cholesky((inverse + inverse.mT) / 2, upper=True)
    return (factor / factor.diagonal(dim1=1, dim2=2)[..., None]).triu(1).float().contiguous()


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


def packed_by_torch(weights: torch.Tensor, packing: Packing, weighing: Weighing) -> Packed:
    """`packed` without a compiler."""
    wrong = int((~torch.isfinite(weights)).sum())
    if wrong:
        raise _not_finite(wrong)
    blocks = fitted_blocks(weights, packing, weighing.share, weighing.passing)
    rows, columns = weights.shape
    dense = unpack(packing, {"blocks": blocks}, (rows, columns), 0, rows, torch.float32)
    share, weights = weighing.share[:columns].double(), weights.double()
    error, power = ((dense - weights) ** 2 * share).sum(), (weights**2 * share).sum()
    return _sound(Packed(blocks, float(error), float(power)), weights)


def packed_by_c(packer: NativePacker, weights: torch.Tensor, packing: Packing, weighing: Weighing) -> Packed:
    """`packed` by this packer."""
    rows, columns = weights.shape
    weights = weights if weights.dtype in KINDS else weights.float()
    weights = weights if weights.stride(1) == 1 else weights.contiguous()
    blocks = torch.empty(block_shape(packing, rows, columns), dtype=torch.uint8)
    tries = (STARTS, ROUNDS) if packing.name == "int4" else (NUDGES, SCALES)
    books, starts, sums = codebooks(), torch.tensor(tries[0]), torch.zeros(2, dtype=torch.float64)
    passing = None if weighing.passing is None else weighing.passing.data_ptr()
    wrong = packer.pack(
        PackingJob(
            weights.data_ptr(), weighing.share.data_ptr(), passing, books.data_ptr(), starts.data_ptr(),
            blocks.data_ptr(), sums.data_ptr(), KINDS[weights.dtype], rows, columns, weights.stride(0),
            packing.bits, len(starts), tries[1],
        )
    )  # fmt: skip
    if wrong:
        raise _not_finite(wrong)
    return _sound(Packed(blocks, *sums.tolist()), weights)


def _sound(found: Packed, weights: torch.Tensor) -> Packed:
    """Raises CheckpointError where scale and offset ran over, so that the blocks mean nothing."""
    if not isfinite(found.error) or not isfinite(found.power):
        raise CheckpointError(
            f"weights of up to {float(weights.abs().max()):.3g} are beyond what the scales of blocks hold, so that "
            "they cannot be packed; fetch or save the checkpoint again"
        )
    return found


def _not_finite(count: int) -> CheckpointError:
    return CheckpointError(
        f"{count:,} weights are infinite or no numbers, which cannot be packed; fetch or save the checkpoint again"
    )
