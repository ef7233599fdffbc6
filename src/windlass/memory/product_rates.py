"""How fast matrices multiply where their weights come from memory, as the layers of a model do one after another.

Legend: x (rows, in) times w (out, in) transposed, as a linear layer multiplies.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.nn import functional

from windlass.facts.rate_curve import RateCurve
from windlass.memory.timing import typical_seconds

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
# (out, in) of the matrices of a layer of Llama 3.2 3B: 201 MB in bfloat16, far more than any cache.
LAYER = ((3072, 3072), (1024, 3072), (1024, 3072), (3072, 3072), (8192, 3072), (8192, 3072), (3072, 8192))


Multiply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def measure_products(
    dtype: torch.dtype,
    device: torch.device,
    shapes: Sequence[tuple[int, int]] = LAYER,
    rows: Sequence[int] = ROWS,
    seconds: float = 0.2,
    most: float = 12.0,
    multiply: Multiply = functional.linear,
) -> RateCurve:
    """Flops/s by rows, from walks through all matrices, repeated for `seconds` or done once, whichever is longer.

    `multiply` is what does it. After `most` seconds no further number of rows is begun: on a slow or busy machine the
    curve ends earlier.
    """
    begun = time.perf_counter()
    weights = [torch.empty(shape, dtype=dtype, device=device).uniform_(-0.02, 0.02) for shape in shapes]
    inputs = {size: torch.ones(max(rows), size, dtype=dtype, device=device) for _, size in shapes}
    flops = 2 * sum(weight.numel() for weight in weights)
    points: list[tuple[int, float]] = []
    for count in rows:
        if points and time.perf_counter() - begun > most:
            break
        walk = partial(_walk, multiply, [(inputs[weight.shape[1]][:count], weight) for weight in weights])
        points.append((count, count * flops / typical_seconds(walk, device, seconds)))
    return RateCurve(tuple(points))


def measure_reads(device: torch.device, nbytes: int, seconds: float = 0.2) -> float:
    """Bytes/s that memory is read at, from sums over `nbytes` of ones."""
    held = torch.ones(nbytes // 4, dtype=torch.float32, device=device)
    return nbytes / typical_seconds(held.sum, device, seconds)


def measure_copies(device: torch.device, nbytes: int, seconds: float = 0.2) -> float:
    """Bytes/s that memory is copied at, each byte counted once though it is read and written."""
    source, target = (torch.ones(nbytes, dtype=torch.uint8, device=device) for _ in range(2))
    return nbytes / typical_seconds(lambda: target.copy_(source), device, seconds)


def _walk(multiply: Multiply, products: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for x, weight in products:
        multiply(x, weight)
