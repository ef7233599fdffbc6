"""AWQ's words (layout "gemm") to plain numbers on a device.

A word holds the codes of one input and eight outputs; its half bytes, lowest first, are outputs 0, 2, 4, 6, 1, 3, 5, 7.
So the matrix lies transposed, and is unpacked so.

Legend: N outputs, K inputs, G groups of inputs that share a scale, n outputs asked for.
"""

import torch
import triton
import triton.language as tl

PER_WORD = 8
INPUTS, WORDS = 16, 16
"""Of a program's tile."""


@triton.jit
def _awq_kernel(
    codes: tl.tensor, zeros: tl.tensor, scales: tl.tensor, out: tl.tensor,
    K: tl.tensor, n: tl.tensor, N: tl.tensor, group: tl.tensor,
    INPUTS: tl.constexpr, WORDS: tl.constexpr,
) -> None:  # fmt: skip
    k = (tl.program_id(1) * INPUTS + tl.arange(0, INPUTS))[:, None, None]
    word = (tl.program_id(0) * WORDS + tl.arange(0, WORDS))[None, :, None]
    place = tl.arange(0, 8)[None, None, :]
    shift = place % 2 * 16 + place // 2 * 4
    there = (k < K) & (word * 8 < n)
    row = (k // group).to(tl.int64)
    code = (tl.load(codes + k.to(tl.int64) * (N // 8) + word, mask=there, other=0) >> shift) & 15
    zero = (tl.load(zeros + row * (N // 8) + word, mask=there, other=0) >> shift) & 15
    scale = tl.load(scales + row * N + word * 8 + place, mask=there, other=0.0).to(tl.float32)
    number = (code - zero).to(tl.float32) * scale
    tl.store(out + k.to(tl.int64) * n + word * 8 + place, number.to(out.dtype.element_ty), mask=there)


def unpack_awq(
    codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor, start: int, stop: int, dtype: torch.dtype
) -> torch.Tensor:
    """codes int32 (K, N / 8), zeros int32 (G, N / 8), scales (G, N) -> outputs start .. stop, (n, K) in `dtype`.

    `start` and `stop` are multiples of 8. The result is the view of a matrix that lies as (K, n).
    """
    (inputs, words), groups = codes.shape, len(zeros)
    assert start % PER_WORD == 0 and stop % PER_WORD == 0 and stop <= words * PER_WORD and inputs % groups == 0
    assert codes.is_contiguous() and zeros.is_contiguous() and scales.is_contiguous()
    out = torch.empty(inputs, stop - start, dtype=dtype, device=codes.device)
    first = start // PER_WORD
    grid = (-(-(stop - start) // (PER_WORD * WORDS)), -(-inputs // INPUTS))
    _awq_kernel[grid](
        codes[0, first:], zeros[0, first:], scales[0, start:], out,
        inputs, stop - start, words * PER_WORD, inputs // groups,
        INPUTS=INPUTS, WORDS=WORDS, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return out.T
