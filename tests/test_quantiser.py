"""Packing weights into blocks: C and torch give the same bytes, with less error than rounding within the range."""

from collections.abc import Callable
from functools import partial
from math import isfinite

import pytest
import torch

from windlass.errors import CheckpointError
from windlass.facts.packing import Packing
from windlass.kernels import quantiser
from windlass.kernels.encodings.blocks import INT4, INT8, block_shape, codebooks, unpack
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.packer import NativePacker, native_packer
from windlass.kernels.quantiser import Packed, packed, packed_by_c, packed_by_torch, weighing_of

BOTH = pytest.mark.parametrize("packing", [INT4, INT8], ids=lambda packing: packing.name)

WEIGHTS: dict[str, Callable[[], torch.Tensor]] = {
    "normal": lambda: torch.randn(48, 192),
    "small, padded rows and columns": lambda: torch.randn(37, 100) * 0.02,
    "bfloat16": lambda: (torch.randn(32, 128) * 0.02).bfloat16(),
    "float16": lambda: (torch.randn(32, 128) * 0.02).half(),
    "far from zero": lambda: torch.randn(32, 128) + 3,
    "heavy tails": lambda: torch.distributions.StudentT(2.5).sample((64, 256)),
    "even": lambda: torch.rand(64, 64),
    "constant": lambda: torch.full((16, 64), 0.37),
    "zeros": lambda: torch.zeros(16, 64),
    "tiny": lambda: torch.randn(16, 64) * 1e-28,
    "close together, far from zero": lambda: torch.rand(32, 128) * torch.logspace(-4, 0, 32)[:, None] + 3,
    "one column": lambda: torch.randn(20, 1),
    "squares beyond float32": lambda: torch.randn(32, 128) * 1e30,
    "one so large": lambda: torch.randn(16, 64).index_put((torch.tensor(3), torch.tensor(5)), torch.tensor(1e36)),
}


@pytest.fixture
def packer() -> NativePacker:
    found = native_packer()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


def dense(blocks: torch.Tensor, packing: Packing, weights: torch.Tensor) -> torch.Tensor:
    return unpack(packing, {"blocks": blocks}, tuple(weights.shape), 0, len(weights), torch.float32)


def correlated(columns: int, rows: int = 256) -> torch.Tensor:
    """Inputs (n, K) of unequal columns that go together with their neighbours."""
    x = torch.randn(rows, columns + 4) * torch.rand(columns + 4) ** 2
    return x.unfold(1, 5, 1).sum(-1)


def products(x: torch.Tensor) -> torch.Tensor:
    groups = torch.nn.functional.pad(x, (0, -x.shape[1] % 64)).view(len(x), -1, 64).transpose(0, 1)
    return groups.mT @ groups / len(x)


def by_range(weights: torch.Tensor, bits: int) -> torch.Tensor:
    """Round-to-nearest within the range of each 64 columns, a scale of 16 bits and a whole zero: what is usual."""
    groups, top = weights.float().reshape(-1, 64), 2**bits - 1
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = ((high - low) / top).clamp_min(1e-9)
    zero = (-low / scale).round()
    codes = ((groups / scale).round() + zero).clamp(0, top)
    return ((codes - zero) * scale.half().float()).view(weights.shape)


def error(approximation: torch.Tensor, weights: torch.Tensor) -> float:
    return float(((approximation - weights) ** 2).mean())


@BOTH
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("known", ["nothing", "squares", "products"])
def test_c_and_torch_give_the_same_bytes(packer: NativePacker, packing: Packing, kind: str, known: str) -> None:
    weights = WEIGHTS[kind]()
    x = correlated(weights.shape[1])
    inputs = {"nothing": None, "squares": x.square().mean(0), "products": products(x)}[known]
    weighing = weighing_of(weights.shape[1], inputs)
    ours, reference = packed_by_c(packer, weights, packing, weighing), packed_by_torch(weights, packing, weighing)
    assert ours.blocks.shape == block_shape(packing, *weights.shape)
    assert torch.equal(ours.blocks, reference.blocks)
    assert ours.error == pytest.approx(reference.error, rel=1e-3, abs=1e-12)
    assert ours.power == pytest.approx(reference.power, rel=1e-3, abs=1e-12)


def test_the_codebooks_allow_the_fast_way(packer: NativePacker) -> None:
    books = codebooks()
    assert packer.by_cells(books.data_ptr())


@BOTH
def test_rows_packed_apart_are_the_rows_packed_together(packing: Packing) -> None:
    weights = torch.randn(80, 128)
    apart = [packed(part, packing).blocks for part in (weights[:16], weights[16:64], weights[64:])]
    assert torch.equal(torch.cat(apart), packed(weights, packing).blocks)


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        (torch.distributions.Normal(0.0, 0.02), 0.69),
        (torch.distributions.Laplace(0.0, 0.02), 0.56),
        (torch.distributions.StudentT(4.0), 0.52),
        (torch.distributions.StudentT(2.5), 0.40),
    ],
    ids=["normal", "laplace", "student 4", "student 2.5"],
)
def test_int4_leaves_less_than_rounding_within_the_range(kind: torch.distributions.Distribution, share: float) -> None:
    weights = kind.sample((128, 1024))
    assert error(dense(packed(weights, INT4).blocks, INT4, weights), weights) < share * error(
        by_range(weights, 4), weights
    )


def outliers(columns: bool) -> torch.Tensor:
    """Normal weights of which one in a hundred, or all of one column in a hundred, are eight times as large."""
    where = torch.rand(1024) if columns else torch.rand(128, 1024)
    return torch.where(where < 0.01, 8.0, 1.0) * torch.randn(128, 1024)


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        (lambda: torch.randn(128, 1024) * 0.02, 0.79),
        (lambda: torch.distributions.Laplace(0.0, 0.02).sample((128, 1024)), 0.79),
        (lambda: torch.distributions.StudentT(4.0).sample((128, 1024)), 0.80),
        (lambda: outliers(columns=False), 0.81),
        (lambda: outliers(columns=True), 0.81),
    ],
    ids=["normal", "laplace", "student 4", "outliers", "columns of outliers"],
)
def test_int8_finds_a_grid_that_leaves_less(kind: Callable[[], torch.Tensor], share: float) -> None:
    weights = kind()
    assert error(dense(packed(weights, INT8).blocks, INT8, weights), weights) < share * error(
        by_range(weights, 8), weights
    )


@pytest.mark.parametrize("kind", ["normal", "bfloat16", "heavy tails", "even", "far from zero"])
def test_int8_is_never_worse_than_rounding_within_the_range(kind: str) -> None:
    weights = WEIGHTS[kind]().float()
    assert error(dense(packed(weights, INT8).blocks, INT8, weights), weights) <= error(by_range(weights, 8), weights)


def test_important_columns_are_kept_better() -> None:
    weights, importance = torch.randn(64, 256), torch.ones(256)
    importance[::8] = 100.0
    plain, weighted = (dense(packed(weights, INT4, h).blocks, INT4, weights) for h in (None, importance))

    def product_error(approximation: torch.Tensor) -> float:
        return float(((approximation - weights) ** 2 * importance).sum())

    assert product_error(weighted) < 0.5 * product_error(plain)
    assert error(weighted, weights) > error(plain, weights)


@BOTH
def test_errors_passed_on_make_up_for_each_other(packing: Packing) -> None:
    weights, x = torch.randn(64, 256), correlated(256, 1024)
    known = (x.square().mean(0), products(x))
    errors = [
        float(((dense(packed(weights, packing, inputs).blocks, packing, weights) - weights) @ x.T).square().mean())
        for inputs in known
    ]
    assert errors[1] < 0.6 * errors[0]


@BOTH
def test_inputs_that_do_not_go_together_pass_nothing_on(packing: Packing) -> None:
    weights, squares = torch.randn(32, 128), torch.rand(128) + 0.1
    apart = torch.diag_embed(squares.view(2, 64))
    assert torch.equal(packed(weights, packing, apart).blocks, packed(weights, packing, squares).blocks)


def test_an_importance_that_says_nothing_changes_nothing() -> None:
    weights = torch.randn(16, 128)
    plain = packed(weights, INT4).blocks
    assert torch.equal(packed(weights, INT4, torch.full((128,), 7.0)).blocks, plain)
    assert torch.equal(packed(weights, INT4, torch.zeros(128)).blocks, plain)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(wrong: float, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(quantiser, "native_packer", lambda: Missing("this test wants torch"))
    weights = torch.randn(16, 64)
    weights[3, 5] = wrong
    with pytest.raises(CheckpointError, match="1 weights are infinite or no numbers.*fetch or save"):
        packed(weights, INT4)


def packed_or_refused(pack: Callable[[], Packed]) -> Packed | str:
    """What is packed has an error that is a number."""
    try:
        return pack()
    except CheckpointError as error:
        return str(error)


@BOTH
@pytest.mark.parametrize("size", [1e36, 3e36, 1e37, 3e37, 1e38, 3.4e38])
def test_c_and_torch_refuse_the_same_weights_as_too_large(packer: NativePacker, packing: Packing, size: float) -> None:
    for weights in (torch.randn(16, 64).clamp(-1, 1) * size, torch.randn(16, 64), torch.full((16, 64), size)):
        weights[3, 5] = size
        weighing = weighing_of(64, None)
        ours = packed_or_refused(partial(packed_by_c, packer, weights, packing, weighing))
        reference = packed_or_refused(partial(packed_by_torch, weights, packing, weighing))
        if isinstance(ours, str) or isinstance(reference, str):
            assert ours == reference and f"up to {size:.3g} are beyond what the scales" in ours
            continue
        assert torch.equal(ours.blocks, reference.blocks)
        assert isfinite(ours.error) and ours.error < ours.power
        assert ours.error == pytest.approx(reference.error, rel=1e-3)


@BOTH
@pytest.mark.parametrize("native", [True, False])
def test_weights_too_large_for_the_scales_are_refused(
    packing: Packing, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(quantiser, "native_packer", lambda: Missing("this test wants torch"))
    weights = torch.full((16, 64), torch.finfo(torch.float32).max)
    with pytest.raises(CheckpointError, match=r"up to 3.4e\+38 are beyond what the scales .* hold.*fetch or save"):
        packed(weights, packing)
