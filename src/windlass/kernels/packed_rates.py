"""How fast packed matrices multiply where their bytes come from memory, as the layers of a model do one after another.

Legend: x (rows, in) times w (out, in) transposed, w in Windlass's own blocks.
"""

import time
from collections.abc import Sequence
from functools import partial

import torch

from windlass.facts.own_checkpoint import ROWS
from windlass.facts.packing import Packing
from windlass.facts.rate_curve import RateCurve
from windlass.kernels.encodings.blocks import CODE_BYTES, block_shape
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.packed_product import packed_linear
from windlass.memory.timing import typical_seconds


def measure_packed_products(
    packing: Packing,
    dtype: torch.dtype,
    device: torch.device,
    shapes: Sequence[tuple[int, int]],
    rows: Sequence[int],
    seconds: float = 0.2,
    most: float = 8.0,
) -> RateCurve:
    """Flops/s by rows of activations in `dtype`, from walks through all matrices; see measure_products.

    After `most` seconds no further number of rows is begun.
    """
    weights = [random_matrix(packing, shape, device) for shape in shapes]
    inputs = {size: torch.ones(max(rows), size, dtype=dtype, device=device) for _, size in shapes}
    flops = 2 * sum(out * into for out, into in shapes)
    # The first product of all may have kernels compiled, which is no speed of theirs.
    packed_linear(weights[0], inputs[weights[0].shape[1]][:1])
    begun, points = time.perf_counter(), list[tuple[int, float]]()
    for count in rows:
        if points and time.perf_counter() - begun > most:
            break
        walk = partial(_walk, [(weight, inputs[weight.shape[1]][:count]) for weight in weights])
        points.append((count, count * flops / typical_seconds(walk, device, seconds)))
    return RateCurve(tuple(points))


def random_matrix(packing: Packing, shape: tuple[int, int], device: torch.device) -> PackedMatrix:
    """A matrix of `shape` with random codes of "int4" or "int8", and scales that keep its numbers small."""
    blocks = torch.randint(0, 256, block_shape(packing, *shape), dtype=torch.uint8, device=device)
    ends = torch.full((2 * ROWS,), 0.01, dtype=torch.bfloat16, device=device)
    blocks[..., CODE_BYTES[packing.name] :] = ends.view(torch.uint8)
    return PackedMatrix(packing, shape, {"blocks": blocks})


def _walk(products: Sequence[tuple[PackedMatrix, torch.Tensor]]) -> None:
    for weight, x in products:
        packed_linear(weight, x)
