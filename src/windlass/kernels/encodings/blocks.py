"""Windlass's own packings, "int4" and "int8": blocks of 16 rows by 64 columns, laid out for the processor's lanes.

A packed matrix (N, K) is one tensor of bytes (ceil(N / 16), ceil(K / 64), block bytes): all blocks of 16 rows follow
each other along K. Rows and columns beyond N and K are padding: any finite numbers, multiplied with zeros or left out.

A block of "int4" has 576 bytes (4.5 bits a number):

    512  codes: the code of row n, column k is in byte 32 (k // 4) + 2 n + k % 2, in the low half for k % 4 < 2, else
         in the high half. So 32 bytes are 16 rows by 4 columns, and pairs of columns of one row are neighbours.
     32  scales of the 16 rows, bfloat16
     32  offsets of the 16 rows, bfloat16; the two lowest bits also choose one of four codebooks

    number = scale * CODEBOOKS[offset bits & 3][code] + offset, the offset as it stands with those bits

A block of "int8" has 1088 bytes (8.5 bits a number):

    1024  codes, signed: the code of row n, column k is byte 32 (k // 2) + 2 n + k % 2
      32  scales, bfloat16
      32  offsets, bfloat16

    number = scale * code + offset

A codebook is t (1 + u (c + u b)) of t = code - 7.5 and u = t / 7.5, rounded to bfloat16: even, or dense in the middle,
or dense at one end; a negative scale mirrors it. Groups of trained weights differ in how heavy their tails are, and
the one that suits a group best costs no bit (b, c chosen on normal, Laplace and Student weights and on outliers).

Legend: N rows, K columns, Bn = ceil(N / 16) and Bk = ceil(K / 64) blocks along them.
"""

from collections.abc import Mapping

import torch

from windlass.facts.own_checkpoint import COLUMNS, ROWS, own_packing
from windlass.facts.packing import Packing

INT4, INT8 = own_packing(4), own_packing(8)
CODE_BYTES = {"int4": ROWS * COLUMNS // 2, "int8": ROWS * COLUMNS}
BLOCK_BYTES = {name: codes + 4 * ROWS for name, codes in CODE_BYTES.items()}

CODEBOOK_CURVES = ((0.15, 0.15), (0.7, 0.15), (0.7, 1.0), (1.0, 0.5))
"""(b, c) of each codebook."""


def codebooks() -> torch.Tensor:
    """float32 (4, 16), each number one that bfloat16 holds."""
    t = torch.arange(16, dtype=torch.float64) - 7.5
    u = t / 7.5
    rows = [t * (1 + u * (c + u * b)) for b, c in CODEBOOK_CURVES]
    return torch.stack(rows).to(torch.bfloat16).float()


def block_shape(packing: Packing, rows: int, columns: int) -> tuple[int, int, int]:
    """Of the bytes of a packed matrix (rows, columns)."""
    return -(-rows // ROWS), -(-columns // COLUMNS), BLOCK_BYTES[packing.name]


def unpack(
    packing: Packing, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], start: int, stop: int,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Rows start .. stop of a matrix of `shape` -> (stop - start, K) in `dtype`; `start` is a multiple of 16.

    `parts` has the one role "blocks", uint8 (Bn, Bk, block bytes). Numbers are made in float32 and then rounded.
    """
    assert start % ROWS == 0, f"row {start} is within a block"
    blocks = parts["blocks"].view(*block_shape(packing, *shape))[start // ROWS : -(-stop // ROWS)]
    codes, scales, offsets = split(packing, blocks)
    levels = codes.float() if packing.name == "int8" else _levels(codes, parts_choice(blocks))
    numbers = levels * scales[..., None] + offsets[..., None]  # (bn, Bk, 16, 64)
    dense = numbers.transpose(1, 2).reshape(-1, blocks.shape[1] * COLUMNS)
    return dense[: stop - start, : shape[1]].to(dtype)


def split(packing: Packing, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """blocks uint8 (bn, Bk, block bytes) -> codes (bn, Bk, 16, 64), scales and offsets float32 (bn, Bk, 16)."""
    size = CODE_BYTES[packing.name]
    scales, offsets = blocks[..., size:].contiguous().view(torch.bfloat16).float().split(ROWS, dim=-1)
    raw, lead = blocks[..., :size], blocks.shape[:2]
    if packing.name == "int8":
        codes = raw.view(torch.int8).reshape(*lead, COLUMNS // 2, ROWS, 2).transpose(2, 3)
        return codes.reshape(*lead, ROWS, COLUMNS), scales, offsets
    quads = raw.reshape(*lead, COLUMNS // 4, ROWS, 2)
    codes = torch.stack([quads & 15, quads >> 4], dim=-2)  # (bn, Bk, 16 quads, 16 rows, 2 halves, 2)
    return codes.transpose(2, 3).reshape(*lead, ROWS, COLUMNS), scales, offsets


def join(packing: Packing, codes: torch.Tensor, scales: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The inverse of `split`: codes (bn, Bk, 16, 64), bfloat16 scales and offsets (bn, Bk, 16) -> uint8 blocks."""
    lead = codes.shape[:2]
    if packing.name == "int8":
        raw = codes.to(torch.int8).view(*lead, ROWS, COLUMNS // 2, 2).transpose(2, 3).reshape(*lead, -1)
        raw = raw.view(torch.uint8)
    else:
        quads = codes.to(torch.uint8).view(*lead, ROWS, COLUMNS // 4, 2, 2).transpose(2, 3)
        raw = (quads[..., 0, :] | quads[..., 1, :] << 4).reshape(*lead, -1)
    ends = torch.cat([scales, offsets], dim=-1).to(torch.bfloat16).view(torch.uint8)
    return torch.cat([raw, ends], dim=-1)


def parts_choice(blocks: torch.Tensor) -> torch.Tensor:
    """int4 blocks (bn, Bk, 576) -> which codebook each row of a block uses, int64 (bn, Bk, 16)."""
    return (blocks[..., BLOCK_BYTES["int4"] - 2 * ROWS :: 2] & 3).long()


def _levels(codes: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """codes (bn, Bk, 16, 64) and choice (bn, Bk, 16) -> numbers of the codebooks, float32 (bn, Bk, 16, 64)."""
    return codebooks().to(codes.device).flatten()[choice[..., None] * 16 + codes.long()]
