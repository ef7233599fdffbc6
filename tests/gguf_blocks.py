"""Matrices of GGUF's types with any codes, and what the gguf package makes of their bytes."""

import gguf
import torch
from gguf.quants import dequantize

from windlass.facts.packing import Packing
from windlass.kernels.packed_matrix import PackedMatrix

# Numbers and bytes of a block, where its float16 numbers lie.
TYPES = {
    "Q4_0": (32, 18, (0,)), "Q4_1": (32, 20, (0, 2)), "Q5_0": (32, 22, (0,)), "Q5_1": (32, 24, (0, 2)),
    "Q8_0": (32, 34, (0,)), "Q2_K": (256, 84, (80, 82)), "Q3_K": (256, 110, (108,)), "Q4_K": (256, 144, (0, 2)),
    "Q5_K": (256, 176, (0, 2)), "Q6_K": (256, 210, (208,)), "IQ4_NL": (32, 18, (0,)), "IQ4_XS": (256, 136, (0,)),
    "MXFP4": (32, 17, ()),
}  # fmt: skip


def gguf_matrix(name: str, rows: int, blocks: int, heads: int = 0) -> PackedMatrix:
    """`blocks` blocks to a row, every bit of them random but for scales, which are of a weight's size."""
    draw = torch.Generator().manual_seed(3)
    numbers, nbytes, halves = TYPES[name]
    raw = torch.randint(0, 256, (rows, blocks, nbytes), dtype=torch.uint8, generator=draw)
    for at in halves:
        scales = torch.randn(rows, blocks, 1, generator=draw) * 0.01
        raw[..., at : at + 2] = scales.half().view(torch.uint8)
    if name == "MXFP4":  # its scale is a power of two
        raw[..., 0] = torch.randint(115, 128, (rows, blocks), dtype=torch.uint8, generator=draw)
    packing = Packing(name, bits=4, group=32, row_step=1)
    return PackedMatrix(packing, (rows, blocks * numbers), {"blocks": raw.view(rows, -1)}, heads)


def gguf_numbers(matrix: PackedMatrix) -> torch.Tensor:
    """float32 (N, K)."""
    kind = gguf.GGMLQuantizationType[matrix.packing.name]
    return torch.from_numpy(dequantize(matrix.parts["blocks"].numpy(), kind))
