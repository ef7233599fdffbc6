"""Products of a row or two with plain bfloat16 matrices by the native kernel are what float64 makes of the numbers."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from other_processors import NEEDS, OWN_THREADS, built_for_others
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.plain import PlainLibrary, build_plain, plain_library, plain_product
from windlass.model import head_product
from windlass.model.head_product import head_logits

SHAPES = pytest.mark.parametrize("shape", [(64, 256), (130, 100), (7, 5), (1, 129), (300, 1)], ids=str)


@pytest.fixture(scope="module")
def library() -> PlainLibrary:
    """The one of this machine, or the reason why its tests are skipped."""
    found = plain_library()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


def bfloat16(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.2).bfloat16()


def check_product(library: PlainLibrary, shape: tuple[int, int]) -> None:
    """Against float64 the error is that of rounding the result, and at most 1.1 times torch's."""
    weight = bfloat16(*shape)
    for rows in range(1, library.most_rows + 1):
        x = bfloat16(rows, shape[1])
        wanted, ours = x.double() @ weight.double().T, plain_product(library, x, weight)
        assert ours.shape == wanted.shape and ours.dtype == torch.bfloat16
        assert rms(ours - wanted) <= 1.1 * rms(F.linear(x, weight) - wanted) + 1e-6 * rms(wanted)


def rms(difference: torch.Tensor) -> float:
    return difference.double().square().mean().sqrt().item()


@SHAPES
def test_it_errs_as_torch_does(library: PlainLibrary, shape: tuple[int, int]) -> None:
    check_product(library, shape)


def test_the_number_of_threads_changes_no_bit(library: PlainLibrary) -> None:
    weight, x, results = bfloat16(1100, 300), bfloat16(1, 300), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(plain_product(library, x, weight))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_it_reads_nothing_behind_the_last_row(library: PlainLibrary) -> None:
    """Columns that are no multiple of a vector end in the middle of one; what lies there is not a number."""
    held = torch.full((10, 100), torch.nan, dtype=torch.bfloat16)
    held[:7] = bfloat16(7, 100)
    x = torch.full((3, 100), torch.nan, dtype=torch.bfloat16)
    x[0] = bfloat16(1, 100)[0]
    assert plain_product(library, x[:1], held[:7]).isfinite().all()


def test_other_dtypes_more_rows_and_turned_weights_are_left_to_torch(library: PlainLibrary) -> None:
    weight, x = bfloat16(64, 64), bfloat16(1, 64)
    assert library.multiplies(x, weight) and library.multiplies(x[None], nn.Parameter(weight))
    assert not library.multiplies(x.float(), weight.float()) and not library.multiplies(x, weight.half())
    assert not library.multiplies(bfloat16(library.most_rows + 1, 64), weight)
    assert not library.multiplies(x[:0], weight)
    assert not library.multiplies(x, weight.T)


@torch.inference_mode()
def test_logits_are_those_of_the_heads_own_forward(library: PlainLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[torch.Size]()

    def noted(library: PlainLibrary, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return plain_product(library, x, weight)

    monkeypatch.setattr(head_product, "plain_product", noted)
    hidden = bfloat16(1, 1, 64)
    for bias in (False, True):
        head = nn.Linear(64, 40, bias=bias, dtype=torch.bfloat16)
        torch.testing.assert_close(head_logits(head, hidden), head(hidden))
    assert torch.equal(head_logits(nn.Identity(), hidden), hidden)
    assert calls == [(1, 1, 64)], "ours is for the head without a bias"


@pytest.fixture(params=[*NEEDS, OWN_THREADS])
def other_library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlainLibrary:
    """What a processor with fewer instructions would use, and one without torch's OpenMP."""
    return built_for_others(request.param, build_plain, tmp_path, monkeypatch)


def test_other_processors_and_threads_give_the_same(other_library: PlainLibrary) -> None:
    for shape in ((64, 256), (130, 100), (7, 5)):
        check_product(other_library, shape)
