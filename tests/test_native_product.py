"""Products by the native kernel are what float64 makes of the unpacked numbers: any shape, dtype, threads."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from checkpoints import random_model, save
from gguf_blocks import TYPES, gguf_matrix, gguf_numbers
from other_processors import NEEDS, OWN_THREADS, built_for_others
from packed_folders import write_packed
from windlass.engine.llm import LLM
from windlass.facts.packing import Packing
from windlass.kernels.backend import PackedChoice, choose_packed, product_backend
from windlass.kernels.encodings.blocks import COLUMNS, INT4, INT8, ROWS, block_shape, join
from windlass.kernels.encodings.table import unpack_rows
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.loading import SHARED_WORK
from windlass.kernels.native.product import ProductLibrary, build_product, native_product, product_library
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.packed_product import packed_linear

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BOTH = pytest.mark.parametrize("packing", [INT4, INT8], ids=lambda packing: packing.name)
EACH_TYPE = pytest.mark.parametrize("name", TYPES)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
TILES = PackedChoice("tiles", "for comparison")


@pytest.fixture(scope="module")
def library() -> ProductLibrary:
    """The one of this machine, or the reason why its tests are skipped."""
    found = product_library()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


def random_matrix(packing: Packing, rows: int, columns: int, seed: int = 0, heads: int = 0) -> PackedMatrix:
    """Any codes, uneven scales, offsets of a weight's size; in the padding as well."""
    draw = torch.Generator().manual_seed(seed)
    high, deep, _ = block_shape(packing, rows, columns)
    low, most = (0, 16) if packing is INT4 else (-128, 128)
    codes = torch.randint(low, most, (high, deep, ROWS, COLUMNS), generator=draw)
    scales = torch.randn(high, deep, ROWS, generator=draw).exp() * (0.01 if packing is INT4 else 0.001)
    offsets = torch.randn(high, deep, ROWS, generator=draw) * 0.02
    return PackedMatrix(packing, (rows, columns), {"blocks": join(packing, codes, scales, offsets)}, heads)


def activations(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Uneven, with a mean, so that offsets matter."""
    draw = torch.Generator().manual_seed(rows)
    return (torch.randn(rows, columns, generator=draw) * 3 + 0.5).to(dtype)


def numbers(matrix: PackedMatrix, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(N, K) unpacked by the definition, as the rows lie."""
    return unpack_rows(matrix, 0, matrix.shape[0], dtype)


def exact(matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
    """float64 (R, N)."""
    return x.double() @ numbers(matrix).T


def check_product(library: ProductLibrary, matrix: PackedMatrix, dtype: torch.dtype, row_counts: Iterable[int]) -> None:
    """The error is at most twice that of torch's product of the numbers unpacked into `dtype`.

    Beyond that a quarter of a float32 rounding of the sum's terms: where there are few sums, torch may be lucky.
    """
    weight, low = numbers(matrix), numbers(matrix, dtype)
    for rows in row_counts:
        x = activations(rows, matrix.shape[1], dtype)
        wanted, ours = x.double() @ weight.T, native_product(library, matrix, x)
        assert ours.shape == wanted.shape and ours.dtype == dtype
        luck = torch.finfo(torch.float32).eps / 4 * rms(x.double().abs() @ weight.T.abs())
        assert rms(ours - wanted) <= 2 * rms(F.linear(x, low) - wanted) + luck, rows


def rms(difference: torch.Tensor) -> float:
    return difference.double().square().mean().sqrt().item()


@BOTH
@EACH_DTYPE
@pytest.mark.parametrize("shape", [(64, 256), (16, 64), (33, 100), (7, 5), (160, 1088), (1, 700)], ids=str)
def test_it_errs_at_most_twice_as_torch_does(
    library: ProductLibrary, packing: Packing, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    few, many = range(1, 10), (15, 16, 17, 31, 40, 300)
    check_product(library, random_matrix(packing, *shape), dtype, (*few, *many))


@BOTH
def test_rounding_is_that_of_the_result_alone(library: ProductLibrary, packing: Packing) -> None:
    """Products are exact and sums float32, so in 16 bits nearly all of the error is the rounding of what comes out."""
    matrix = random_matrix(packing, 64, 512)
    for dtype in (torch.bfloat16, torch.float16):
        x = activations(11, 512, dtype)
        wanted = exact(matrix, x)
        assert rms(native_product(library, matrix, x) - wanted) <= 1.05 * rms(wanted.to(dtype) - wanted)


@BOTH
@EACH_DTYPE
def test_the_number_of_threads_changes_no_bit(library: ProductLibrary, packing: Packing, dtype: torch.dtype) -> None:
    matrix = random_matrix(packing, 900, 300)
    assert 900 * 300 >= SHARED_WORK
    for rows in (1, 8, 9, 270):
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(native_product(library, matrix, activations(rows, 300, dtype)))
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@BOTH
def test_what_lies_in_the_padding_does_not_matter(library: ProductLibrary, packing: Packing) -> None:
    """Columns beyond K are multiplied with zeros, rows beyond N are not written."""
    matrix = random_matrix(packing, 19, 70)
    other = random_matrix(packing, 19, 70, seed=1)
    blocks, code_bytes = matrix.parts["blocks"].clone(), packing.bits * 128
    used = torch.zeros(*blocks.shape[:2], ROWS, COLUMNS, dtype=torch.long)
    used.view(2, 2, ROWS, COLUMNS)[0, 0], used[0, 1, :, :6] = 1, 1
    used[1, 0, :3], used[1, 1, :3, :6] = 1, 1
    ends = torch.zeros(*blocks.shape[:2], ROWS)
    kept = join(packing, used * (15 if packing is INT4 else -1), ends, ends)[..., :code_bytes]
    theirs = other.parts["blocks"][..., :code_bytes]
    blocks[..., :code_bytes] = (blocks[..., :code_bytes] & kept) | (theirs & ~kept)
    changed = PackedMatrix(packing, matrix.shape, {"blocks": blocks})
    assert not torch.equal(blocks, matrix.parts["blocks"])
    for rows in (1, 20):
        x = activations(rows, 70, torch.float32)
        assert torch.equal(native_product(library, changed, x), native_product(library, matrix, x))


def test_numbers_of_every_size_are_split_without_loss(library: ProductLibrary) -> None:
    """Each of three bfloat16 parts of a float32 counts, from the tiny to the huge."""
    matrix = random_matrix(INT8, 16, 64)
    x = activations(4, 64, torch.float32) * torch.tensor([1e-30, 1e-3, 1e3, 1e30])[:, None]
    wanted = exact(matrix, x)
    error = (native_product(library, matrix, x) - wanted).abs().amax(1) / wanted.abs().amax(1)
    assert error.max() < 1e-6


@BOTH
@EACH_DTYPE
def test_any_leading_dimensions_and_the_order_of_heads(packing: Packing, dtype: torch.dtype) -> None:
    matrix = random_matrix(packing, 96, 130, heads=3)
    x = activations(10, 130, dtype).view(2, 5, 130)
    out = packed_linear(matrix, x)
    rows = torch.arange(96).view(3, 16, 2).transpose(1, 2).flatten()  # where the model's row lies
    wanted = exact(matrix, x.flatten(0, 1))[:, rows].view(2, 5, 96)
    assert (out - wanted).abs().max() <= 2 * torch.finfo(dtype).eps * wanted.abs().max() + 1e-5
    assert packed_linear(matrix, x[:, :0]).shape == (2, 0, 96)


def test_rows_that_do_not_lie_together_will_do(library: ProductLibrary) -> None:
    matrix = random_matrix(INT4, 32, 128)
    x = activations(6, 256, torch.bfloat16)[::2, ::2]
    assert torch.equal(packed_linear(matrix, x), native_product(library, matrix, x.contiguous()))


def test_blocks_that_are_too_few_are_not_read(library: ProductLibrary) -> None:
    matrix = random_matrix(INT4, 32, 128)
    short = PackedMatrix(INT4, (48, 128), matrix.parts)
    with pytest.raises(AssertionError):
        native_product(library, short, activations(1, 128, torch.float32))


def test_the_choice_says_which_instructions_or_why_not(library: ProductLibrary) -> None:
    matrix = random_matrix(INT4, 32, 64)
    assert choose_packed(matrix, 1) == PackedChoice("fused", library.says)
    elsewhere = PackedMatrix(INT4, matrix.shape, {"blocks": matrix.parts["blocks"].to("meta")})
    other = PackedMatrix(Packing("Q9_X", 4, 128), matrix.shape, matrix.parts)
    for choice in (choose_packed(elsewhere, 1), choose_packed(other, 1)):
        assert choice.name == "tiles" and "no kernel for" in choice.reason


@BOTH
@EACH_DTYPE
def test_without_the_kernel_tiles_give_the_same(packing: Packing, dtype: torch.dtype) -> None:
    matrix = random_matrix(packing, 50, 200)
    x = activations(5, 200, dtype)
    wanted = exact(matrix, x)
    assert rms(packed_linear(matrix, x, TILES) - wanted) <= 1.01 * rms(F.linear(x, numbers(matrix, dtype)) - wanted)


# --- GGUF's types: as products, what the gguf package unpacks -----------------------------------------------------


def check_type(library: ProductLibrary, matrix: PackedMatrix, dtype: torch.dtype, row_counts: Iterable[int]) -> None:
    """As `check_product`, against the gguf package's numbers."""
    weight = gguf_numbers(matrix)
    for rows in row_counts:
        x = activations(rows, matrix.shape[1], dtype)
        wanted, ours = x.double() @ weight.double().T, native_product(library, matrix, x)
        luck = torch.finfo(torch.float32).eps / 4 * rms(x.double().abs() @ weight.double().T.abs())
        assert ours.dtype == dtype
        assert rms(ours - wanted) <= 2 * rms(F.linear(x, weight.to(dtype)) - wanted) + luck, rows


@pytest.fixture(scope="module")
def wide_library(library: ProductLibrary) -> ProductLibrary:
    if "Q4_K" not in library.formats:
        pytest.skip("this processor has no AVX-512")
    return library


@EACH_TYPE
@EACH_DTYPE
@pytest.mark.parametrize("shape", [(16, 1), (37, 3), (80, 5)], ids=str)
def test_types_of_gguf_err_at_most_twice_as_torch_does(
    wide_library: ProductLibrary, name: str, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    check_type(wide_library, gguf_matrix(name, *shape), dtype, (1, 2, 3, 8, 9, 20))


@EACH_TYPE
def test_types_of_gguf_do_not_depend_on_the_number_of_threads(wide_library: ProductLibrary, name: str) -> None:
    matrix = gguf_matrix(name, 1100, 256 // TYPES[name][0])
    for rows in (1, 30):
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(native_product(wide_library, matrix, activations(rows, matrix.shape[1], torch.float32)))
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_fewer_rows_than_are_unpacked_together_go_another_way(wide_library: ProductLibrary) -> None:
    matrix, x = gguf_matrix("Q4_K", 15, 1), activations(3, 256, torch.float32)
    assert not wide_library.multiplies(matrix)
    assert choose_packed(matrix, 3).name == "by_row" and choose_packed(matrix, 300).name == "tiles"
    for rows in (3, 300):
        x = activations(rows, 256, torch.float32)
        wanted = x.double() @ gguf_numbers(matrix).double().T
        assert (packed_linear(matrix, x) - wanted).abs().max() < 1e-6 * wanted.abs().max()


# --- other processors, other threads ------------------------------------------------------------------------------


@pytest.fixture(params=[*NEEDS, OWN_THREADS])
def other_library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProductLibrary:
    """What a processor with fewer instructions would use, and one without torch's OpenMP."""
    return built_for_others(request.param, build_product, tmp_path, monkeypatch)


@pytest.mark.slow
@BOTH
def test_other_processors_and_threads_give_the_same(other_library: ProductLibrary, packing: Packing) -> None:
    for shape in ((64, 256), (33, 100)):
        matrix = random_matrix(packing, *shape)
        for dtype in DTYPES:
            check_product(other_library, matrix, dtype, (1, 3, 4, 5, 8, 9, 70))


@pytest.mark.slow
def test_other_processors_multiply_gguf_or_leave_it(other_library: ProductLibrary) -> None:
    for name in set(TYPES) & set(other_library.formats):
        for dtype in DTYPES:
            check_type(other_library, gguf_matrix(name, 37, 3), dtype, (1, 9))


class TestWithoutACompiler:
    @pytest.fixture(autouse=True)
    def none_here(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("CC", "no-such-cc")
        product_library.cache_clear()
        yield
        product_library.cache_clear()

    def test_a_packed_model_says_once_that_it_is_slow_and_what_to_install(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        dense = save(random_model("llama"), tmp_path / "llama")
        with LLM(write_packed(dense, INT4)):
            said = [line for line in caplog.messages if "plain torch" in line]
        assert said == [
            "packed weights are unpacked by plain torch in every pass, which may be slower than bfloat16, since no C "
            "compiler: there is no no-such-cc; install gcc or set CC"
        ]
        caplog.clear()
        with LLM(dense):
            assert not any("plain torch" in line for line in caplog.messages)

    def test_doctor_says_so_too(self) -> None:
        assert product_backend().startswith("plain torch, since no C compiler: there is no no-such-cc")


def test_with_a_kernel_a_packed_model_says_nothing_of_it(
    library: ProductLibrary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LLM(write_packed(save(random_model("llama"), tmp_path / "llama"), INT4)):
        assert not any("plain torch" in line for line in caplog.messages)
    assert product_backend() == f"native kernel ({library.says})"
