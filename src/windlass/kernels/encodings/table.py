"""Every encoding by its name: plain torch that unpacks some rows, the definition of correct for all faster ways."""

from collections.abc import Callable, Mapping

import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings import awq, blocks, fp8, gguf, gptq, mxfp4, whole_numbers
from windlass.kernels.packed_matrix import PackedMatrix

Unpack = Callable[
    [Packing, Mapping[str, torch.Tensor], tuple[int, int], int, int, torch.dtype],
    torch.Tensor,
]
"""(packing, parts, (N, K), start, stop, dtype) -> rows start .. stop, (stop - start, K) in dtype."""

ENCODINGS: dict[str, Unpack] = {
    "int4": blocks.unpack,
    "int8": blocks.unpack,
    "awq": awq.unpack,
    "gptq": gptq.unpack,
    "packed-int": whole_numbers.unpack,
    "plain-int": whole_numbers.unpack,
    "fp8": fp8.unpack,
    "mxfp4": mxfp4.unpack,
    **dict.fromkeys(gguf.BLOCKS, gguf.unpack),
    **dict.fromkeys(gguf.PLAIN, gguf.unpack_plain),
}


def unpack_rows(matrix: PackedMatrix, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows start .. stop as they lie, before any order of heads is undone -> (stop - start, K) in `dtype`."""
    unpack = ENCODINGS[matrix.packing.name]
    return unpack(matrix.packing, matrix.parts, matrix.shape, start, stop, dtype)
