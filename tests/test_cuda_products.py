"""Kernels for packed weights on a device give what plain torch gives, as exactly as it does.

They run in Triton's interpreter here; `make test-gpu` runs the same tests on a device.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from interpreted_triton import DEVICES, bfloat16_as_devices_do
from windlass.facts.packing import Packing
from windlass.kernels.cuda import launchers
from windlass.kernels.cuda.backend import DeviceKernels, device_backend, load_kernels
from windlass.kernels.cuda.guard import Guard
from windlass.kernels.cuda.many_rows import many_rows
from windlass.kernels.cuda.one_row import one_row
from windlass.kernels.cuda.product import Product, device_linear, device_multiplies
from windlass.kernels.cuda.tile import SCRATCH_BYTES, Tile, product_tiles, row_tiles
from windlass.kernels.cuda.tuning import Tuning
from windlass.kernels.encodings.blocks import INT4, INT8, block_shape, join, unpack
from windlass.kernels.packed_matrix import PackedMatrix

ROOT = Path(__file__).resolve().parent.parent

__all__ = ["bfloat16_as_devices_do"]

BOTH = pytest.mark.parametrize("packing", [INT4, INT8], ids=lambda packing: packing.name)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


def packed(packing: Packing, shape: tuple[int, int], device: str = "cpu") -> PackedMatrix:
    """Every code, codebook and sign of a scale; what pads the matrix is no different from the rest."""
    lead = block_shape(packing, *shape)[:2]
    low, high = (0, 16) if packing is INT4 else (-128, 128)
    codes = torch.randint(low, high, (*lead, 16, 64))
    scales, offsets = torch.randn(2, *lead, 16).bfloat16()
    return PackedMatrix(packing, shape, {"blocks": join(packing, codes, scales, offsets).to(device)})


def plain(matrix: PackedMatrix, dtype: torch.dtype) -> torch.Tensor:
    return unpack(matrix.packing, matrix.parts, matrix.shape, 0, matrix.shape[0], dtype)


def as_exact_as_torch(ours: torch.Tensor, matrix: PackedMatrix, x: torch.Tensor) -> bool:
    """Whether the error against float64 is at most twice that of a product of unpacked numbers in the dtype of x."""
    exact = x.double() @ plain(matrix, torch.float64).T
    theirs = x @ plain(matrix, x.dtype).T
    assert ours.shape == exact.shape and ours.dtype == x.dtype
    return bool((ours - exact).norm() <= 2 * (theirs - exact).norm())


def words(matrix: PackedMatrix) -> torch.Tensor:
    return matrix.parts["blocks"].view(torch.int32)


# --- products -------------------------------------------------------------------------------------------------------


@DEVICES
@BOTH
@DTYPES
@pytest.mark.parametrize("tile", [Tile(1, 2), Tile(2, 1, shares=3)], ids=["whole", "in shares"])
def test_one_row_is_as_exact_as_torch(packing: Packing, dtype: torch.dtype, tile: Tile, device: str) -> None:
    matrix = packed(packing, (37, 203), device)
    x = torch.randn(1, 203, dtype=dtype, device=device)
    assert as_exact_as_torch(one_row(words(matrix), x, matrix.shape, tile), matrix, x)


@DEVICES
@BOTH
@DTYPES
@pytest.mark.parametrize(("count", "tile"), [(3, Tile(2, x_rows=16, shares=2)), (17, Tile(4, x_rows=16))], ids=str)
def test_some_rows_are_as_exact_as_torch(
    packing: Packing, dtype: torch.dtype, count: int, tile: Tile, device: str
) -> None:
    matrix = packed(packing, (37, 131), device)
    x = torch.randn(count, 131, dtype=dtype, device=device)
    assert as_exact_as_torch(many_rows(words(matrix), x, matrix.shape, tile), matrix, x)


@DEVICES
@BOTH
@pytest.mark.parametrize(("count", "shape"), [(64, (64, 128)), (64, (30, 67)), (130, (37, 68))], ids=str)
def test_many_rows_are_as_exact_as_torch(packing: Packing, shape: tuple[int, int], count: int, device: str) -> None:
    """They are read from a copy in which a unit's columns lie apart, unless a unit is broken off by the end."""
    matrix = packed(packing, shape, device)
    x = torch.randn(count, shape[1], dtype=torch.bfloat16, device=device)
    assert as_exact_as_torch(many_rows(words(matrix), x, shape, Tile(4, x_rows=64)), matrix, x)


@DEVICES
@BOTH
@DTYPES
def test_unpacked_blocks_are_torchs_bit_by_bit(packing: Packing, dtype: torch.dtype, device: str) -> None:
    matrix = packed(packing, (37, 203), device)
    assert torch.equal(launchers.unpack_blocks(words(matrix), matrix.shape, dtype), plain(matrix, dtype))


@DEVICES
@pytest.mark.parametrize("name", sorted(launchers.GGUF_TYPES))
def test_gguf_is_unpacked_as_the_gguf_package_does(name: str, device: str) -> None:
    kind = GGMLQuantizationType[name]
    numbers, size = GGML_QUANT_SIZES[kind]
    draw = np.random.default_rng(3)
    data = draw.integers(0, 256, (5, 512 // numbers, size), dtype=np.uint8)
    for at in {"Q4_K": (0, 2), "Q6_K": (208,)}.get(name, (0,)):  # scales are numbers, where any bytes may be none
        data[..., at : at + 2] = draw.normal(size=(5, 512 // numbers, 1)).astype(np.float16).view(np.uint8)
    rows = torch.from_numpy(data.reshape(5, -1))
    expected = torch.from_numpy(quants.dequantize(rows.numpy(), kind)).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        ours = launchers.unpack_gguf(name, rows.to(device), (5, 512), dtype)
        assert torch.equal(ours, expected.to(dtype))


@DEVICES
@pytest.mark.parametrize(("start", "stop"), [(0, 48), (16, 40)])
def test_awq_is_unpacked_by_its_order_of_half_bytes(start: int, stop: int, device: str) -> None:
    inputs, outputs, group = 96, 48, 32
    codes = torch.randint(0, 16, (inputs, outputs))
    zeros = torch.randint(0, 16, (inputs // group, outputs))
    scales = torch.randn(inputs // group, outputs).half()
    words = [_awq_words(part).to(device) for part in (codes, zeros)]
    spread = [part.repeat_interleave(group, 0).float() for part in (zeros, scales)]
    expected = ((codes - spread[0]) * spread[1]).T[start:stop].to(device)
    for dtype in (torch.float32, torch.bfloat16):
        ours = launchers.unpack_awq(*words, scales.to(device), start, stop, dtype)
        assert torch.equal(ours, expected.to(dtype))


def _awq_words(codes: torch.Tensor) -> torch.Tensor:
    """codes (k, N) -> int32 (k, N / 8)."""
    ordered = codes.view(len(codes), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
    return sum(ordered[..., place] << 4 * place for place in range(8)).to(torch.int32)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_kernel_compiles_for_a_device_that_need_not_be_there(capability: str, tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment = plain | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-W", "error", str(ROOT / "tests" / "compile_kernels.py"), capability]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "kernels of 10 names" in ran.stdout


# --- which kernel a product takes -----------------------------------------------------------------------------------


def kernels(**launched: Callable[..., Any]) -> DeviceKernels:
    """Nothing but the kernels named."""
    return DeviceKernels(SimpleNamespace(**launched, GGUF_TYPES=frozenset()), Guard((RuntimeError,)), "3", "a stand-in")


@pytest.fixture
def tuning(tmp_path: Path) -> Tuning:
    return Tuning(tmp_path / "cuda" / "card.json", lambda run: 1.0, launchers.FAILURES)


@BOTH
def test_few_rows_are_multiplied_packed_and_many_unpacked(packing: Packing, tuning: Tuning) -> None:
    launched: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        def launch(*given: Any) -> Any:
            launched.append(name)
            return getattr(launchers, name)(*given)

        return launch

    names = ("one_row", "many_rows", "unpack_blocks", "unpack_gguf")
    product = Product(kernels(**{name: noting(name) for name in names}), tuning, 2)
    matrix = packed(packing, (37, 70))
    for count, kernel in ((1, "one_row"), (2, "many_rows"), (128, "unpack_blocks")):
        launched.clear()
        x = torch.randn(count, 70)
        assert as_exact_as_torch(product.linear(matrix, x), matrix, x)
        assert set(launched) == {kernel}
    assert product.linear(matrix, torch.empty(0, 70)).shape == (0, 37)


def test_a_tile_of_rows_is_unpacked_wherever_it_begins(tuning: Tuning) -> None:
    product, matrix = Product(load_kernels(), tuning, 2), packed(INT4, (70, 70))
    for start, stop in ((0, 70), (16, 48), (48, 70), (16, 17)):
        assert torch.equal(product.unpack(matrix, start, stop, torch.float32), plain(matrix, torch.float32)[start:stop])


def test_bytes_that_no_kernel_can_read_go_by_plain_torch(tuning: Tuning) -> None:
    matrix = packed(INT4, (37, 70))
    shape = matrix.parts["blocks"].shape
    astray = torch.empty(matrix.nbytes + 1, dtype=torch.uint8)[1:].copy_(matrix.parts["blocks"].flatten())
    moved = PackedMatrix(INT4, matrix.shape, {"blocks": astray.view(shape)})
    x = torch.randn(3, 70)
    assert torch.equal(Product(kernels(), tuning, 2).linear(moved, x), x @ plain(matrix, x.dtype).T)


def test_a_kernel_that_does_not_run_is_replaced_and_that_is_said_once(
    tuning: Tuning, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("no C compiler was found\nand more")

    product = Product(kernels(one_row=broken, unpack_blocks=broken), tuning, 2)
    matrix, x = packed(INT4, (37, 70)), torch.randn(1, 70)
    for _ in range(2):
        assert torch.equal(product.linear(matrix, x), x @ plain(matrix, x.dtype).T)
    assert [record.getMessage() for record in caplog.records] == [
        "the product of one row with int4 in torch.float32 goes by plain torch, since its kernel does not run here: "
        "no C compiler was found",
        "the unpacking of int4 to torch.float32 goes by plain torch, since its kernel does not run here: "
        "no C compiler was found",
    ]


def test_memory_that_runs_out_is_no_fault_of_a_kernel(tuning: Tuning) -> None:
    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("device memory")

    with pytest.raises(torch.OutOfMemoryError):
        Product(kernels(one_row=full), tuning, 2).linear(packed(INT4, (37, 70)), torch.randn(1, 70))


def test_without_a_device_nothing_is_served_and_the_reason_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert not device_multiplies(torch.randn(1, 64))
    assert device_backend() == "plain torch, since torch sees no CUDA device"
    assert load_kernels().says.startswith("Triton 3")


@pytest.mark.gpu
@BOTH
@DTYPES
def test_a_device_serves_products_of_any_rows(packing: Packing, dtype: torch.dtype, own_cache: Path) -> None:
    matrix = packed(packing, (1000, 777), "cuda")
    for count in (1, 2, 17, 64, 130, 1100):
        x = torch.randn(count, 777, dtype=dtype, device="cuda")
        assert device_multiplies(x)
        assert as_exact_as_torch(device_linear(matrix, x), matrix, x)
        assert torch.equal(device_linear(matrix, x), device_linear(matrix, x))
    assert list((own_cache / "cuda").glob("*.json"))


# --- tiles and their tuning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(512, 4096), (4096, 512), (128256, 4096), (40, 70)], ids=str)
@pytest.mark.parametrize("multiprocessors", [16, 132])
def test_columns_are_shared_until_the_device_is_busy_and_no_further(
    shape: tuple[int, int], multiprocessors: int
) -> None:
    blocks = -(-shape[1] // 64)
    for count in (1, 3, 40, 512):
        tiles = product_tiles(shape, count, 2, multiprocessors) if count > 1 else row_tiles(shape, multiprocessors)
        for tile in tiles:
            programs = -(-shape[0] // (16 * tile.strips)) * -(-count // tile.x_rows)
            assert 1 <= tile.shares <= blocks
            assert tile.shares == 1 or 4 * tile.shares * count * shape[0] <= SCRATCH_BYTES
            assert tile.shares == 1 or programs * (tile.shares - 1) < 4 * multiprocessors


def tiles() -> Sequence[Tile]:
    return Tile(2), Tile(4), Tile(8)


def seconds_by(times: dict[int, float], noted: list[Tile]) -> Iterator[Any]:
    """`measure` that answers by the strips of the tile that ran last, and `run` that notes it; 0.0 stands for none."""

    def run(tile: Tile) -> None:
        noted.append(tile)
        if not times[tile.strips]:
            raise RuntimeError("out of shared memory")

    def measure(do: Callable[[], object]) -> float:
        do()
        return times[noted[-1].strips]

    yield measure
    yield run


def test_the_fastest_tile_is_kept_for_later_runs_whatever_its_shares(tmp_path: Path) -> None:
    noted: list[Tile] = []
    measure, run = seconds_by({2: 3.0, 4: 1.0, 8: 2.0}, noted)
    file = tmp_path / "new" / "card.json"
    assert Tuning(file, measure, (RuntimeError,)).best("a", tiles(), run) == Tile(4)
    assert len(noted) == 3
    again = Tuning(file, measure, (RuntimeError,))
    assert again.best("a", (Tile(2, shares=5), Tile(4, shares=5)), run) == Tile(4, shares=5)
    assert len(noted) == 3
    assert again.best("b", tiles(), run) == Tile(4)
    assert Tuning(file, measure, (RuntimeError,)).best("a", tiles(), run) == Tile(4)
    assert len(noted) == 6


def test_a_tile_that_cannot_run_is_passed_over_and_if_none_can_the_reason_comes_out(tmp_path: Path) -> None:
    measure, run = seconds_by({2: 0.0, 4: 2.0, 8: 0.0}, [])
    assert Tuning(tmp_path / "a.json", measure, (RuntimeError,)).best("a", tiles(), run) == Tile(4)
    measure, run = seconds_by({2: 0.0, 4: 0.0, 8: 0.0}, [])
    with pytest.raises(RuntimeError, match="out of shared memory"):
        Tuning(tmp_path / "b.json", measure, (RuntimeError,)).best("a", tiles(), run)


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": {"strips": 64}}'])
def test_a_damaged_file_is_measured_anew(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "card.json"
    file.write_text(damage)
    measure, run = seconds_by({2: 3.0, 4: 1.0, 8: 2.0}, [])
    assert Tuning(file, measure, (RuntimeError,)).best("a", tiles(), run) == Tile(4)
    measure, run = seconds_by({2: 1.0, 4: 3.0, 8: 2.0}, [])
    assert Tuning(file, measure, (RuntimeError,)).best("a", tiles(), run) == Tile(4)
