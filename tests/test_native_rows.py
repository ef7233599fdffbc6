"""GGUF's types unpacked by the native kernel are, bit by bit, what the gguf package unpacks; products add nothing."""

from pathlib import Path

import gguf
import pytest
import torch
import torch.nn.functional as F

from gguf_blocks import TYPES, gguf_matrix, gguf_numbers
from other_processors import NEEDS, built_for_others
from windlass.kernels.native import rows as rows_file
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.rows import RowsLibrary, build_rows, native_rows, native_rows_product, rows_library
from windlass.kernels.packed_matrix import PackedMatrix

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
EACH_TYPE = pytest.mark.parametrize("name", TYPES)


@pytest.fixture(scope="module")
def library() -> RowsLibrary:
    """The one of this machine, or the reason why its tests are skipped."""
    found = rows_library()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


@EACH_TYPE
def test_unpacked_as_the_gguf_package_does_bit_by_bit(library: RowsLibrary, name: str) -> None:
    matrix = gguf_matrix(name, 37, 3)
    wanted = gguf_numbers(matrix)
    for dtype in DTYPES:
        for start, stop in ((0, 37), (5, 23), (36, 37), (4, 4)):
            assert torch.equal(native_rows(library, matrix, start, stop, dtype), wanted[start:stop].to(dtype))


@EACH_TYPE
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_err_at_most_twice_as_torch_does(library: RowsLibrary, name: str, dtype: torch.dtype) -> None:
    matrix = gguf_matrix(name, 50, 5)
    weight = gguf_numbers(matrix)
    for rows in (1, 2, 3, 4, 5, 9):
        x = torch.randn(rows, matrix.shape[1], generator=torch.Generator().manual_seed(rows)).to(dtype)
        wanted, ours = x.double() @ weight.double().T, native_rows_product(library, matrix, x)
        error, theirs = ((y - wanted).square().mean().sqrt() for y in (ours, F.linear(x, weight.to(dtype))))
        assert ours.dtype == dtype and error <= 2 * theirs, rows


@EACH_TYPE
def test_the_number_of_threads_changes_no_bit(library: RowsLibrary, name: str) -> None:
    matrix, x = gguf_matrix(name, 1100, 256 // TYPES[name][0]), torch.ones(3, 256)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(native_rows_product(library, matrix, x))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_the_smallest_power_of_two_is_not_zero(library: RowsLibrary) -> None:
    matrix = gguf_matrix("MXFP4", 2, 2)
    matrix.parts["blocks"].view(2, 2, 17)[..., 0] = torch.tensor([[0, 1], [2, 250]], dtype=torch.uint8)
    assert torch.equal(native_rows(library, matrix, 0, 2, torch.float32), gguf_numbers(matrix))


def test_bytes_that_are_too_few_are_not_read(library: RowsLibrary) -> None:
    matrix = gguf_matrix("Q4_K", 4, 1)
    with pytest.raises(AssertionError):
        native_rows(library, PackedMatrix(matrix.packing, (5, 256), matrix.parts), 0, 5, torch.float32)


def test_the_sizes_of_blocks_are_ggufs() -> None:
    kinds = {name: gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] for name in rows_file.TYPES}
    assert rows_file.TYPES == kinds
    assert set(rows_file.TYPES) == set(TYPES)


@pytest.fixture(params=NEEDS)
def other_library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RowsLibrary:
    """What a processor with fewer instructions would use."""
    return built_for_others(request.param, build_rows, tmp_path, monkeypatch)


@pytest.mark.slow
def test_other_processors_unpack_the_same(other_library: RowsLibrary) -> None:
    for name in TYPES:
        matrix = gguf_matrix(name, 9, 2)
        wanted, x = gguf_numbers(matrix), torch.ones(2, matrix.shape[1])
        for dtype in DTYPES:
            assert torch.equal(native_rows(other_library, matrix, 0, 9, dtype), wanted.to(dtype))
        out = native_rows_product(other_library, matrix, x)
        assert (out - x.double() @ wanted.double().T).abs().max() <= 1e-5 * wanted.abs().sum(1).max()
