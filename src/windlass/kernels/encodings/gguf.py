"""GGUF's encodings: a row of a matrix is its blocks one after another, whatever the type.

The layouts are those of ggml (github.com/ggml-org/ggml); `gguf.quants.dequantize` of the gguf package is what they are
tested against, bit by bit in float32.
"""

from collections.abc import Callable, Mapping

import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings import gguf_k, gguf_legacy, gguf_tables

BLOCKS: dict[str, tuple[int, Callable[[torch.Tensor], torch.Tensor]]] = {
    "Q4_0": (32, gguf_legacy.q4_0),
    "Q4_1": (32, gguf_legacy.q4_1),
    "Q5_0": (32, gguf_legacy.q5_0),
    "Q5_1": (32, gguf_legacy.q5_1),
    "Q8_0": (32, gguf_legacy.q8_0),
    "Q2_K": (256, gguf_k.q2_k),
    "Q3_K": (256, gguf_k.q3_k),
    "Q4_K": (256, gguf_k.q4_k),
    "Q5_K": (256, gguf_k.q5_k),
    "Q6_K": (256, gguf_k.q6_k),
    "IQ4_NL": (32, gguf_tables.iq4_nl),
    "IQ4_XS": (256, gguf_tables.iq4_xs),
    "MXFP4": (32, gguf_tables.mxfp4),
}
"""By type: how many numbers a block holds, and what makes them of blocks: uint8 (B, bytes) -> float32 (B, numbers)."""

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types without blocks, for tensors that are stored otherwise than transformers has them."""


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`.

    `parts` has the one role "blocks", uint8 (N, bytes of a row). Numbers are made in float32 and then rounded.
    """
    numbers, make = BLOCKS[packing.name]
    rows = parts["blocks"].view(shape[0], -1)[start:stop]
    blocks = rows.reshape(-1, rows.shape[1] * numbers // shape[1])
    return make(blocks).view(stop - start, shape[1]).to(dtype)


def unpack_plain(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """As `unpack`, of numbers as they are; "blocks" may be seen as bytes or as numbers."""
    numbers = parts["blocks"].view(PLAIN[packing.name]).view(shape)
    return numbers[start:stop].to(dtype)
