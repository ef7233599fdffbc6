"""Four of GGUF's packings to plain numbers on a device: Q4_0, Q8_0, Q4_K and Q6_K, by the tile.

A row lies as its blocks, each with its scales before or after its codes (github.com/ggml-org/ggml, ggml-common.h):

    Q4_0   32 numbers in  18 bytes: scale f16, 16 bytes; low halves are numbers 0 .. 15, high halves 16 .. 31, less 8
    Q8_0   32 numbers in  34 bytes: scale f16, 32 signed bytes
    Q4_K  256 numbers in 144 bytes: scale f16, scale of minima f16, 12 bytes of 6-bit scales and minima, 128 bytes; each
          32 bytes hold two runs of 32 numbers, in low and in high halves
    Q6_K  256 numbers in 210 bytes: 128 bytes of low 4 bits, 64 of high 2 bits, 16 signed scales, scale f16; less 32

Blocks have even sizes, so a scale can be read as such wherever its tensor begins at an even address. A kernel takes
pieces (half blocks, or runs of a block) by bytes, and writes in order.

Legend: N rows, K columns, p pieces of a tile.
"""

import torch
import triton
import triton.language as tl

PIECES = 16
"""Of a program's tile."""


@triton.jit
def _half(address: tl.tensor, there: tl.tensor) -> tl.tensor:
    """The f16 at byte addresses -> float32."""
    return tl.load(address.to(tl.pointer_type(tl.float16)), mask=there, other=0.0).to(tl.float32)


@triton.jit
def _byte(address: tl.tensor, there: tl.tensor) -> tl.tensor:
    return tl.load(address, mask=there, other=0).to(tl.int32)


@triton.jit
def _signed(byte: tl.tensor) -> tl.tensor:
    """0 .. 255 -> -128 .. 127, as float32."""
    return ((byte ^ 128) - 128).to(tl.float32)


@triton.jit
def _q4_0_kernel(data: tl.tensor, out: tl.tensor, pieces: tl.tensor, PIECES: tl.constexpr) -> None:
    piece = (tl.program_id(0).to(tl.int64) * PIECES + tl.arange(0, PIECES))[:, None]
    there = piece < pieces
    lane = tl.arange(0, 16)[None, :]
    block = data + piece * 18
    scale = _half(block, there)
    byte = _byte(block + 2 + lane, there)
    target = out + piece * 32 + lane
    tl.store(target, (((byte & 15) - 8).to(tl.float32) * scale).to(out.dtype.element_ty), mask=there)
    tl.store(target + 16, (((byte >> 4) - 8).to(tl.float32) * scale).to(out.dtype.element_ty), mask=there)


@triton.jit
def _q8_0_kernel(data: tl.tensor, out: tl.tensor, pieces: tl.tensor, PIECES: tl.constexpr) -> None:
    piece = (tl.program_id(0).to(tl.int64) * PIECES + tl.arange(0, PIECES))[:, None]
    there = piece < pieces
    lane = tl.arange(0, 32)[None, :]
    block = data + piece * 34
    number = _signed(_byte(block + 2 + lane, there)) * _half(block, there)
    tl.store(out + piece * 32 + lane, number.to(out.dtype.element_ty), mask=there)


@triton.jit
def _q4_k_scale(block: tl.tensor, run: tl.tensor, there: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The 6-bit scale and minimum of run 0 .. 7 of a block: runs 4 .. 7 have their high 2 bits in bytes of 0 .. 3."""
    own = _byte(block + 4 + run, there)
    beside = _byte(block + 8 + run, there)
    high_scale = _byte(block + tl.maximum(run, 4), there)
    early = run < 4
    scale = tl.where(early, own & 63, (beside & 15) | ((high_scale >> 2) & 48))
    minimum = tl.where(early, beside & 63, (beside >> 4) | ((own >> 2) & 48))
    return scale.to(tl.float32), minimum.to(tl.float32)


@triton.jit
def _q4_k_kernel(data: tl.tensor, out: tl.tensor, pieces: tl.tensor, PIECES: tl.constexpr) -> None:
    piece = (tl.program_id(0).to(tl.int64) * PIECES + tl.arange(0, PIECES))[:, None]
    there = piece < pieces
    lane = tl.arange(0, 32)[None, :]
    block, part = data + piece // 4 * 144, piece % 4
    scale, scale_of_minima = _half(block, there), _half(block + 2, there)
    byte = _byte(block + 16 + part * 32 + lane, there)
    target = out + piece * 64 + lane
    for high in tl.static_range(2):
        own_scale, minimum = _q4_k_scale(block, part * 2 + high, there)
        code = ((byte >> (4 * high)) & 15).to(tl.float32)
        number = scale * own_scale * code - scale_of_minima * minimum
        tl.store(target + 32 * high, number.to(out.dtype.element_ty), mask=there)


@triton.jit
def _q6_k_kernel(data: tl.tensor, out: tl.tensor, pieces: tl.tensor, PIECES: tl.constexpr) -> None:
    piece = (tl.program_id(0).to(tl.int64) * PIECES + tl.arange(0, PIECES))[:, None]
    there = piece < pieces
    lane = tl.arange(0, 32)[None, :]
    block, part = data + piece // 2 * 210, piece % 2
    scale = _half(block + 208, there)
    high = _byte(block + 128 + part * 32 + lane, there)
    for run in tl.static_range(4):
        low = _byte(block + part * 64 + 32 * (run % 2) + lane, there) >> (4 * (run // 2))
        own_scale = _signed(_byte(block + 192 + part * 8 + 2 * run + lane // 16, there))
        code = ((low & 15) | (((high >> (2 * run)) & 3) << 4)) - 32
        number = scale * own_scale * code.to(tl.float32)
        tl.store(out + piece * 128 + 32 * run + lane, number.to(out.dtype.element_ty), mask=there)


KERNELS = {
    "Q4_0": (_q4_0_kernel, 32),
    "Q8_0": (_q8_0_kernel, 32),
    "Q4_K": (_q4_k_kernel, 64),
    "Q6_K": (_q6_k_kernel, 128),
}
"""By GGUF's name: the kernel, and the numbers of a piece."""


def unpack_gguf(name: str, data: torch.Tensor, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """data uint8, the bytes of whole rows at an even address -> the matrix (N, K) = `shape` in `dtype`."""
    kernel, size = KERNELS[name]
    assert data.dtype == torch.uint8 and data.is_contiguous() and data.data_ptr() % 2 == 0
    out = torch.empty(shape, dtype=dtype, device=data.device)
    pieces = out.numel() // size
    kernel[(-(-pieces // PIECES),)](data, out, pieces, PIECES=PIECES, num_warps=4, enable_fp_fusion=True)
    return out
