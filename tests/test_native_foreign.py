"""Products with other programs' matrices by the native kernel: bit by bit the numbers that their formats define."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from foreign_formats import Packed, awq, fp8, gptq, packed_int, plain_int
from test_foreign_unpackers import fp8_packing, gptq_packing, matrix_of
from windlass.facts.packing import Packing
from windlass.kernels.backend import choose_packed
from windlass.kernels.encodings.table import unpack_rows
from windlass.kernels.native.compiler import Missing, find_compiler, processor
from windlass.kernels.native.loading import SHARED_WORK
from windlass.kernels.native.product import (
    PreparedProduct,
    ProductLibrary,
    build_product,
    native_product,
    product_library,
)
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.packed_product import packed_linear, prepared_linear
from windlass.settings import c_compiler

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
Pack = Callable[[int, int, torch.Generator], Packed]


def mxfp4(rows: int, columns: int, draw: torch.Generator) -> Packed:
    """Any codes and exponents; the numbers are looked up one by one."""
    codes = torch.randint(0, 16, (rows, columns), generator=draw)
    exponents = torch.randint(117, 125, (rows, columns // 32), generator=draw)
    sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    numbers = torch.cat([sizes, -sizes])[codes] * (2.0 ** (exponents - 127)).float().repeat_interleave(32, 1)
    stored = (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8)
    raw = {".weight": stored.unflatten(1, (-1, 16)), ".weight_scale": exponents.to(torch.uint8)}
    return Packed(raw, numbers)


def gptq_of(size: int, bits: int = 4, less: int = 1) -> Packing:
    return Packing("gptq", bits, size, options=(("zero_shift", less),))


def uneven(rows: int, columns: int, draw: torch.Generator) -> Packed:
    """GPTQ whose first four columns were moved to other groups, so that groups differ in size."""
    raw = gptq(rows, columns, draw).raw
    raw[".g_idx"][:4] = torch.tensor([3, 3, 3, 1])
    matrix = matrix_of(gptq_packing(4, 1), Packed(raw, torch.empty(rows, columns)))
    return Packed(raw, unpack_rows(matrix, 0, rows, torch.float32))


CASES: dict[str, tuple[Packing, Pack]] = {
    "awq": (Packing("awq", 4, 32), awq),
    "awq, groups of 64": (Packing("awq", 4, 64), partial(awq, size=64)),
    "gptq": (gptq_packing(4, 1), partial(gptq, order="absent")),
    "gptq, groups of 64 named in order": (gptq_of(64), partial(gptq, size=64, order="plain")),
    "gptq, act-order": (gptq_packing(4, 1), gptq),
    "gptq of 8 bits, act-order": (gptq_of(64, bits=8), partial(gptq, bits=8, size=64)),
    "gptq_v2": (gptq_packing(4, 0), partial(gptq, less=0, order="plain")),
    "gptq of 8 bits": (gptq_packing(8, 1), partial(gptq, bits=8, order="absent")),
    "pack-quantized int4": (Packing("packed-int", 4, 32), packed_int),
    "pack-quantized int4, packed zeros": (Packing("packed-int", 4, 64), partial(packed_int, size=64, zeros="packed")),
    "pack-quantized int4, plain zeros": (Packing("packed-int", 4, 32), partial(packed_int, zeros="plain")),
    "pack-quantized int8": (Packing("packed-int", 8, 32), partial(packed_int, bits=8)),
    "pack-quantized int8, packed zeros": (
        Packing("packed-int", 8, 64), partial(packed_int, bits=8, size=64, zeros="packed"),
    ),
    "int-quantized by groups": (
        Packing("plain-int", 8, 64), lambda n, k, draw: plain_int(n, k, draw, k // 64, zeros=True),
    ),
    "fp8 by blocks": (fp8_packing(32, 32), fp8),
    "fp8 by blocks of 24 rows by 64": (fp8_packing(24, 64), partial(fp8, block=(24, 64), dtype=torch.bfloat16)),
    "mxfp4": (Packing("mxfp4", 4, 32), mxfp4),
}  # fmt: skip
SHAPES = [(16, 64), (40, 192), (72, 320), (264, 576)]
EACH_CASE = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def library() -> ProductLibrary:
    """The one of this machine, or the reason why its tests are skipped."""
    found = product_library()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


def drawn(case: str, rows: int, columns: int) -> tuple[PackedMatrix, torch.Tensor]:
    """The matrix, and its numbers (N, K) in float32, which were not made from it."""
    packing, pack = CASES[case]
    packed = pack(rows, columns, torch.Generator().manual_seed(rows + columns))
    return matrix_of(packing, packed), packed.dense


def numbers_by_products(library: ProductLibrary, matrix: PackedMatrix) -> torch.Tensor:
    """(N, K): each column is what a row that is 1 there and 0 elsewhere gives."""
    return native_product(library, matrix, torch.eye(matrix.shape[1])).T


def activations(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Uneven, with a mean, so that zero points matter."""
    draw = torch.Generator().manual_seed(rows)
    return (torch.randn(rows, columns, generator=draw) * 3 + 0.5).to(dtype)


def rms(difference: torch.Tensor) -> float:
    return difference.double().square().mean().sqrt().item()


@EACH_CASE
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_number_is_that_of_the_format_bit_by_bit(
    library: ProductLibrary, case: str, shape: tuple[int, int]
) -> None:
    matrix, numbers = drawn(case, *shape)
    assert torch.equal(numbers_by_products(library, matrix), numbers)
    assert torch.equal(native_product(library, matrix, torch.eye(shape[1])[5:6]), numbers.T[5:6])


@pytest.mark.parametrize("columns", [32, 96, 160, 1056])
def test_columns_that_fill_no_tile(library: ProductLibrary, columns: int) -> None:
    """Runs of 32, where 64 do not divide the columns or their groups."""
    for case in ("awq", "gptq", "gptq, act-order", "gptq of 8 bits", "pack-quantized int4",
                 "pack-quantized int8", "fp8 by blocks", "mxfp4"):  # fmt: skip
        matrix, numbers = drawn(case, 24, columns)
        assert torch.equal(numbers_by_products(library, matrix), numbers), case


@pytest.mark.parametrize("rows", [17, 31, 33, 100])
def test_rows_that_fill_no_tile(library: ProductLibrary, rows: int) -> None:
    """The last 16 are in part those before; zeros that are packed down begin within a word."""
    for case in ("pack-quantized int4", "pack-quantized int4, packed zeros", "pack-quantized int8, packed zeros",
                 "int-quantized by groups", "fp8 by blocks", "fp8 by blocks of 24 rows by 64", "mxfp4"):  # fmt: skip
        matrix, numbers = drawn(case, rows, 128)
        assert torch.equal(numbers_by_products(library, matrix), numbers), case


@pytest.mark.parametrize(
    ("packing", "pack"),
    [
        (Packing("awq", 4, 192), partial(awq, size=192)),
        (gptq_of(192), partial(gptq, size=192, order="absent")),
        (Packing("packed-int", 4, 192), partial(packed_int, size=192, zeros="packed")),
        (Packing("plain-int", 8, 192), plain_int),
        (fp8_packing(1, 192), partial(fp8, block=(1, 192), ending="_scale")),
        (fp8_packing(48, 192), partial(fp8, block=(48, 192))),
    ],
    ids=["awq", "gptq", "pack-quantized", "int-quantized", "fp8 a row", "fp8 one in all"],
)
def test_one_scale_a_row_or_one_in_all(library: ProductLibrary, packing: Packing, pack: Pack) -> None:
    packed = pack(48, 192, torch.Generator().manual_seed(1))
    assert torch.equal(numbers_by_products(library, matrix_of(packing, packed)), packed.dense)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", ["awq", "pack-quantized int4", "fp8 by blocks"])
def test_scales_of_any_dtype(library: ProductLibrary, case: str, dtype: torch.dtype) -> None:
    matrix, _ = drawn(case, 48, 192)
    matrix = PackedMatrix(matrix.packing, matrix.shape, {**matrix.parts, "scales": matrix.parts["scales"].to(dtype)})
    wanted = unpack_rows(matrix, 0, 48, torch.float32)
    assert torch.equal(numbers_by_products(library, matrix), wanted)


@pytest.mark.parametrize("scales", [torch.uint8, torch.float8_e8m0fnu], ids=str)
def test_fp8_under_powers_of_two(library: ProductLibrary, scales: torch.dtype) -> None:
    exponents = torch.randint(0, 200, (2, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    codes = torch.randn(64, 192, generator=torch.Generator().manual_seed(2)).to(torch.float8_e4m3fn)
    matrix = PackedMatrix(fp8_packing(32, 32), (64, 192), {"codes": codes, "scales": exponents.view(scales)})
    assert torch.equal(numbers_by_products(library, matrix), unpack_rows(matrix, 0, 64, torch.float32))


def test_every_code_of_8_bits_is_its_number(library: ProductLibrary) -> None:
    """The tiny numbers of FP8 too; what is no number stays none, in its own output and in no other."""
    codes = torch.arange(256, dtype=torch.uint8).view(-1, 1).repeat(1, 32)
    matrix = PackedMatrix(
        fp8_packing(256, 32), (256, 32), {"codes": codes.view(torch.float8_e4m3fn), "scales": torch.ones(1, 1)}
    )
    wanted = codes.view(torch.float8_e4m3fn).float()
    torch.testing.assert_close(numbers_by_products(library, matrix), wanted, rtol=0, atol=0, equal_nan=True)
    whole = PackedMatrix(
        Packing("plain-int", 8, 32), (256, 32), {"codes": codes.view(torch.int8), "scales": torch.ones(1)}
    )
    assert torch.equal(numbers_by_products(library, whole), codes.view(torch.int8).float())


@EACH_CASE
@EACH_DTYPE
def test_it_errs_at_most_twice_as_torch_does(library: ProductLibrary, case: str, dtype: torch.dtype) -> None:
    """Against float64; beyond that a quarter of a float32 rounding of the sum's terms, where torch may be lucky."""
    matrix, numbers = drawn(case, 72, 320)
    for rows in (1, 2, 3, 8, 9, 20, 300):
        x = activations(rows, 320, dtype)
        wanted, ours = x.double() @ numbers.double().T, native_product(library, matrix, x)
        luck = torch.finfo(torch.float32).eps / 4 * rms(x.double().abs() @ numbers.double().T.abs())
        assert ours.dtype == dtype
        assert rms(ours - wanted) <= 2 * rms(F.linear(x, numbers.to(dtype)) - wanted) + luck, rows


@EACH_CASE
def test_the_number_of_threads_changes_no_bit(library: ProductLibrary, case: str) -> None:
    matrix, _ = drawn(case, 2080, 128)
    assert 2080 * 128 >= SHARED_WORK
    for rows in (1, 30):
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(native_product(library, matrix, activations(rows, 128, torch.float32)))
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@EACH_CASE
def test_it_is_chosen_for_them(library: ProductLibrary, case: str) -> None:
    matrix, _ = drawn(case, 40, 192)
    x = activations(3, 192, torch.bfloat16)
    assert choose_packed(matrix, 3).name == "fused"
    assert torch.equal(packed_linear(matrix, x), native_product(library, matrix, x))


@EACH_CASE
@EACH_DTYPE
def test_a_matrix_that_was_looked_over_once_is_multiplied_with_any_rows(
    library: ProductLibrary, case: str, dtype: torch.dtype
) -> None:
    matrix, numbers = drawn(case, 2080, 128)
    torch.set_num_threads(2)
    prepared = prepared_linear(matrix)
    assert isinstance(prepared, PreparedProduct)
    for rows in (1, 30, 2):
        x = torch.eye(128, dtype=dtype)[None, 7 : 7 + rows]
        assert torch.equal(prepared(x), numbers.T[None, 7 : 7 + rows].to(dtype)), rows


@pytest.mark.parametrize(
    ("packing", "shape", "pack"),
    [
        (gptq_packing(4, 1), (96, 192), uneven),
        (gptq_packing(3, 1), (96, 192), partial(gptq, bits=3, order="absent")),
        (Packing("packed-int", 4, 32), (96, 192), partial(packed_int, shuffled=True)),
        (Packing("awq", 4, 48), (96, 192), partial(awq, size=48)),
        (Packing("packed-int", 4, 72), (96, 72), partial(packed_int, size=72)),
        (Packing("awq", 4, 32), (8, 192), awq),
    ],
    ids=["uneven groups", "3 bits", "compressed act-order", "groups of 48", "72 columns", "8 rows"],
)
def test_what_the_kernel_cannot_read_is_left_to_torch(
    library: ProductLibrary, packing: Packing, shape: tuple[int, int], pack: Pack
) -> None:
    packed = pack(*shape, torch.Generator().manual_seed(1))
    matrix, x = matrix_of(packing, packed), activations(5, shape[1], torch.float32)
    assert not library.multiplies(matrix) and choose_packed(matrix, 5).name == "tiles"
    wanted = x.double() @ packed.dense.double().T
    assert (packed_linear(matrix, x) - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("role", ["codes", "zeros", "scales"])
def test_bytes_that_are_too_few_are_not_read(library: ProductLibrary, role: str) -> None:
    matrix, _ = drawn("awq", 40, 192)
    short = PackedMatrix(matrix.packing, matrix.shape, {**matrix.parts, role: matrix.parts[role][:-1]})
    assert not library.multiplies(short)
    with pytest.raises(AssertionError):
        native_product(library, short, activations(1, 192, torch.float32))


def test_parts_that_begin_anywhere(library: ProductLibrary) -> None:
    """As they do in a file that is read where it lies: at no multiple of a vector, or even of a number."""
    for case in CASES:
        matrix, numbers = drawn(case, 40, 192)
        parts = {}
        for role, part in matrix.parts.items():
            place = torch.zeros(part.nbytes + 64, dtype=torch.uint8)[12 : 12 + part.nbytes]
            parts[role] = place.view(part.dtype).view(part.shape).copy_(part)
        moved = PackedMatrix(matrix.packing, matrix.shape, parts)
        assert torch.equal(numbers_by_products(library, moved), numbers), case


# --- other processors ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["-march=x86-64", "-march=x86-64-v3", "-march=x86-64-v4"])
def other_library(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProductLibrary]:
    """What a processor with fewer instructions would use."""
    needs = {"-march=x86-64": "sse2", "-march=x86-64-v3": "avx2", "-march=x86-64-v4": "avx512f"}
    if f" {needs[request.param]} " not in processor():
        pytest.skip(f"this processor has no {needs[request.param]}")
    compiler = find_compiler(c_compiler())
    if isinstance(compiler, Missing):
        pytest.skip(compiler.reason)
    found = build_product(compiler, tmp_path / "native", (request.param,))
    assert not isinstance(found, Missing), found.reason
    yield found


@pytest.mark.slow
def test_other_processors_give_the_same(other_library: ProductLibrary) -> None:
    for case in CASES:
        for shape in ((40, 192), (264, 576)):
            matrix, numbers = drawn(case, *shape)
            assert torch.equal(numbers_by_products(other_library, matrix), numbers), case
