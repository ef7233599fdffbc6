"""Other people's packings in plain torch: any rows of a matrix are the numbers that the format's definition gives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from foreign_formats import Packed, awq, fp8, gptq, packed_int, plain_int
from windlass.facts.packing import Packing
from windlass.kernels.encodings import strips
from windlass.kernels.encodings.table import unpack_rows
from windlass.kernels.packed_matrix import PackedMatrix

ROLES = {
    ".qweight": "codes", ".qzeros": "zeros", ".scales": "scales", ".g_idx": "groups",
    ".weight_packed": "codes", ".weight": "codes", ".weight_scale": "scales", ".weight_scale_inv": "scales",
    ".weight_zero_point": "zeros", ".weight_g_idx": "groups",
}  # fmt: skip
Pack = Callable[[int, int, torch.Generator], Packed]


def gptq_packing(bits: int, less: int) -> Packing:
    return Packing("gptq", bits, 32, options=(("zero_shift", less),))


def fp8_packing(rows: int, columns: int) -> Packing:
    return Packing("fp8", 8, columns, options=(("row_block", rows),))


CASES: dict[str, tuple[Packing, Pack]] = {
    "awq": (Packing("awq", 4, 32), awq),
    "awq of groups of 64": (Packing("awq", 4, 64), partial(awq, size=64)),
    **{
        f"gptq {bits} bits, {order}": (gptq_packing(bits, 1), partial(gptq, bits=bits, order=order))
        for bits in (2, 3, 4, 8)
        for order in ("shuffled", "absent")
    },
    "gptq_v2": (gptq_packing(4, 0), partial(gptq, less=0)),
    "gptq_v2 of 3 bits": (gptq_packing(3, 0), partial(gptq, bits=3, less=0, order="plain")),
    "pack-quantized int4": (Packing("packed-int", 4, 32), packed_int),
    "pack-quantized int4, asymmetric": (Packing("packed-int", 4, 32), partial(packed_int, zeros="packed")),
    "pack-quantized int4, plain zeros": (Packing("packed-int", 4, 32), partial(packed_int, zeros="plain")),
    "pack-quantized int4, act-order": (Packing("packed-int", 4, 32), partial(packed_int, shuffled=True)),
    "pack-quantized int8": (Packing("packed-int", 8, 64), partial(packed_int, bits=8, size=64, zeros="packed")),
    "int-quantized a row": (Packing("plain-int", 8, 192), plain_int),
    "int-quantized by groups": (Packing("plain-int", 8, 64), partial(plain_int, groups=3, zeros=True)),
    "fp8 by blocks": (fp8_packing(32, 32), fp8),
    "fp8 by blocks that do not divide": (fp8_packing(40, 80), partial(fp8, block=(40, 80))),
    "fp8 a row": (fp8_packing(1, 192), partial(fp8, block=(1, 192), dtype=torch.bfloat16)),
    "fp8 one in all": (fp8_packing(96, 192), partial(fp8, block=(96, 192))),
}


class Sizes(TorchDispatchMode):
    """Notes how many numbers each operation computed (views of what is there do not count)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.seen.append(out.numel())
        return out


def matrix_of(packing: Packing, packed: Packed) -> PackedMatrix:
    parts = {ROLES[end]: tensor for end, tensor in packed.raw.items() if end in ROLES}
    rows, columns = packed.dense.shape
    return PackedMatrix(packing, (rows, columns), parts)


@pytest.mark.parametrize("case", CASES)
def test_any_rows_are_the_numbers_of_the_definition(case: str) -> None:
    packing, pack = CASES[case]
    packed = pack(96, 192, torch.Generator().manual_seed(3))
    matrix = matrix_of(packing, packed)
    for start, stop in ((0, 96), (0, 1), (5, 43), (64, 96), (95, 96)):
        rows = unpack_rows(matrix, start, stop, torch.float32)
        torch.testing.assert_close(rows, packed.dense[start:stop], rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_strips_make_the_same_numbers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few numbers a strip may have, and no operation makes more than what one takes beside the tile itself."""
    packing, pack = CASES[case]
    packed = pack(96, 192, torch.Generator().manual_seed(3))
    matrix = matrix_of(packing, packed)
    monkeypatch.setattr(strips, "HOST_NUMBERS", 600)
    with Sizes() as sizes:
        rows = unpack_rows(matrix, 30, 70, torch.float32)
    torch.testing.assert_close(rows, packed.dense[30:70], rtol=1e-6, atol=0)
    sizes.seen.remove(40 * 192)  # the tile
    assert max(sizes.seen) <= 64 * 40 + 192 * 8


@pytest.mark.parametrize("case", CASES)
def test_only_the_rows_asked_for_are_read(case: str) -> None:
    """A tile never makes more than itself."""
    packing, pack = CASES[case]
    matrix = matrix_of(packing, pack(96, 192, torch.Generator().manual_seed(3)))
    with Sizes() as sizes:
        unpack_rows(matrix, 32, 40, torch.float32)
    assert max(sizes.seen) <= 32 * 192, "a tile of 8 rows made a tensor of more than 32"


@pytest.mark.parametrize("scales", ["float32", "uint8", "float8_e8m0fnu"])
def test_fp8_is_what_transformers_makes_of_it(scales: str) -> None:
    draw = torch.Generator().manual_seed(5)
    codes = torch.randn(96, 192, generator=draw).to(torch.float8_e4m3fn)
    exponents = torch.randint(118, 126, (3, 6), generator=draw)
    grid = exponents.to(torch.uint8)
    if scales == "float32":
        grid = torch.rand(3, 6, generator=draw)
    elif scales == "float8_e8m0fnu":
        grid = grid.view(torch.float8_e8m0fnu)
    matrix = PackedMatrix(fp8_packing(32, 32), (96, 192), {"codes": codes, "scales": grid})
    expected = Fp8Dequantize(None)._dequantize_one(codes, grid, torch.float32)
    assert torch.equal(unpack_rows(matrix, 0, 96, torch.float32), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mxfp4_is_what_transformers_makes_of_it(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 256, (2, 24, 3, 16), generator=draw, dtype=torch.uint8)
    scales = torch.randint(110, 135, (2, 24, 3), generator=draw).to(torch.uint8)
    expected = convert_moe_packed_tensors(codes, scales, dtype=dtype)  # (E, K, N)
    for expert in range(2):
        parts = {"codes": codes[expert], "scales": scales[expert]}
        matrix = PackedMatrix(Packing("mxfp4", 4, 32), (24, 96), parts)
        assert torch.equal(unpack_rows(matrix, 5, 24, dtype), expected[expert].T[5:])


def test_groups_that_were_never_set_follow_each_other() -> None:
    packed = packed_int(96, 192, torch.Generator().manual_seed(3))
    packed.raw[".weight_g_idx"] = torch.full((192,), -1, dtype=torch.int32)
    matrix = matrix_of(Packing("packed-int", 4, 32), packed)
    torch.testing.assert_close(unpack_rows(matrix, 0, 96, torch.float32), packed.dense, rtol=1e-6, atol=0)
