"""Products of a few rows with matrices of 16 bits by the native kernel are what float64 makes of the numbers."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from checkpoints import random_model, random_prompts, save
from other_processors import NEEDS, OWN_THREADS, built_for_others
from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.kernels import plain_linear as plain_linear_module
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.plain import PlainLibrary, build_plain, plain_library, plain_product
from windlass.kernels.plain_linear import plain_linear
from windlass.model.own_linear import OwnLinear, multiply_ourselves
from windlass.planner.residency import keep_only

DTYPES = (torch.bfloat16, torch.float16)
SHAPES = pytest.mark.parametrize("shape", [(64, 256), (130, 100), (7, 5), (1, 129), (300, 1), (101, 1030)], ids=str)


@pytest.fixture(scope="module")
def library() -> PlainLibrary:
    """The one of this machine, or the reason why its tests are skipped."""
    found = plain_library()
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    return found


def numbers(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.2).to(dtype)


def check_product(library: PlainLibrary, shape: tuple[int, int]) -> None:
    """Against float64 the error is that of rounding the result, and at most 1.1 times torch's; with a bias too."""
    for dtype in library.dtypes:
        weight, bias = numbers(*shape, dtype=dtype), numbers(shape[0], dtype=dtype)
        for rows in range(1, library.most_rows + 1):
            x = numbers(rows, shape[1], dtype=dtype)
            for added in (None, bias):
                wanted = F.linear(x.double(), weight.double(), None if added is None else added.double())
                ours = plain_product(library, x, weight, added)
                assert ours.shape == wanted.shape and ours.dtype == dtype
                assert rms(ours - wanted) <= 1.1 * rms(F.linear(x, weight, added) - wanted) + 1e-6 * rms(wanted)


def rms(difference: torch.Tensor) -> float:
    return difference.double().square().mean().sqrt().item()


@SHAPES
def test_it_errs_as_torch_does(library: PlainLibrary, shape: tuple[int, int]) -> None:
    check_product(library, shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_neither_threads_nor_the_rows_beside_it_change_a_bit_of_a_row(
    library: PlainLibrary, dtype: torch.dtype
) -> None:
    if dtype not in library.dtypes:
        pytest.skip(f"this processor reads no {dtype}")
    weight, x = numbers(1100, 330, dtype=dtype), numbers(library.most_rows, 330, dtype=dtype)
    alone = torch.cat([plain_product(library, row[None], weight) for row in x])
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        for rows in range(1, library.most_rows + 1):
            assert torch.equal(plain_product(library, x[:rows], weight), alone[:rows])


def test_it_reads_nothing_behind_the_last_row(library: PlainLibrary) -> None:
    """Columns that are no multiple of a vector end in the middle of one; what lies there is not a number."""
    for rows in (1, library.most_rows):
        held, x = (torch.full((count + 3, 100), torch.nan, dtype=torch.bfloat16) for count in (7, rows))
        held[:7], x[:rows] = numbers(7, 100), numbers(rows, 100)
        assert plain_product(library, x[:rows], held[:7]).isfinite().all()


def test_rows_that_lie_apart_and_weights_that_begin_anywhere_are_read(library: PlainLibrary) -> None:
    """A weight of a ring begins where its checkpoint has it; a row of x may be a part of a wider one."""
    weight = numbers(40, 70)
    bytes_of_it = weight.flatten().view(torch.uint8)
    for offset in (2, 34):
        held = torch.empty(offset + len(bytes_of_it), dtype=torch.uint8)
        held[offset:] = bytes_of_it
        moved = held[offset:].view(torch.bfloat16).view(40, 70)
        x = numbers(3, 140)[:, 70:]
        assert not x.is_contiguous()
        assert torch.equal(plain_product(library, x, moved), plain_product(library, x.clone(), weight))


def test_other_dtypes_more_rows_and_turned_weights_are_left_to_torch(library: PlainLibrary) -> None:
    weight, x, bias = numbers(64, 64), numbers(1, 64), numbers(64)
    assert library.multiplies(x, weight) and library.multiplies(x[None], nn.Parameter(weight), bias)
    assert not library.multiplies(x.float(), weight.float()), "in float32 tokens are those of torch's own sums"
    assert not library.multiplies(x, weight.half()) and not library.multiplies(x, weight, bias.float())
    assert not library.multiplies(numbers(library.most_rows + 1, 64), weight)
    assert not library.multiplies(x[:0], weight)
    assert not library.multiplies(x, weight.T) and not library.multiplies(x, weight, bias.expand(2, 64).T[:, 0][::2])
    assert not library.multiplies(x, weight.to("meta"))


class Counted:
    """Stands for the kernel and counts the rows that it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        monkeypatch.setattr(plain_linear_module, "plain_product", self)

    def __call__(self, library: PlainLibrary, x: torch.Tensor, *others: torch.Tensor | None) -> torch.Tensor:
        self.rows.append(x.numel() // x.shape[-1])
        return plain_product(library, x, *others)


def test_few_rows_go_to_the_kernel_and_more_to_torch(library: PlainLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, weight, most = Counted(monkeypatch), numbers(64, 96), library.most_rows
    for rows in (1, most, most + 1, 64):
        x = numbers(1, rows, 96)
        torch.testing.assert_close(plain_linear(x, weight), F.linear(x, weight))
    assert counted.rows == [1, most]
    x, weight = x[0, :1].float(), weight.float()
    assert torch.equal(plain_linear(x, weight), F.linear(x, weight)) and counted.rows == [1, most]


def test_without_a_compiler_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_linear_module, "plain_library", lambda: Missing("no compiler"))
    x, weight, bias = numbers(2, 96), numbers(64, 96), numbers(64)
    assert torch.equal(plain_linear(x, weight, bias), F.linear(x, weight, bias))


def test_linear_layers_become_ours_and_those_with_a_forward_of_their_own_stay() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8, bias=False), Doubled(8, 8)))
    before = model(torch.ones(2, 8))
    multiply_ourselves([model])
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.Linear)]
    assert kinds == [OwnLinear, OwnLinear, Doubled]
    assert torch.equal(model(torch.ones(2, 8)), before)


@pytest.mark.parametrize("architecture", ["llama", "mixtral"])
def test_a_model_in_bfloat16_streamed_gives_the_tokens_of_one_in_memory(
    library: PlainLibrary, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers, experts and the head go to the kernel when few rows decode, wherever their weights came from."""
    save(random_model(architecture).to(torch.bfloat16), tmp_path)
    prompts, params = random_prompts(5, 11), SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
    plan, found, read = None, [], []
    for _ in ("in memory", "streamed"):
        counted = Counted(monkeypatch)
        with LLM(tmp_path, plan=plan) as llm:
            outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
            plan = keep_only(llm.opened.facts, llm.prepare(Workload(2, 11, 6)), frozenset())
        found.append([output.outputs[0].token_ids for output in outputs])
        read.append(llm.report.bytes_read)
        layers = llm.opened.facts.num_layers
        assert counted.rows.count(2) >= 5 * (4 * layers + 1), "attention's four and the head, in every decode pass"
        if architecture == "mixtral":
            assert counted.rows.count(1) > 0, "an expert that one of both wants"
    assert found[0] == found[1]
    assert read[1] > 3 * read[0], "one pass after the other"


@pytest.fixture(params=[*NEEDS, OWN_THREADS])
def other_library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlainLibrary:
    """What a processor with fewer instructions would use, and one without torch's OpenMP."""
    return built_for_others(request.param, build_plain, tmp_path, monkeypatch)


def test_other_processors_and_threads_give_the_same(other_library: PlainLibrary) -> None:
    for shape in ((64, 256), (130, 100), (7, 5)):
        check_product(other_library, shape)
