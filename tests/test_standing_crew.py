"""Threads that stand by between short products: whoever calls, and in whatever order, products stay what they were."""

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from windlass.kernels.encodings.blocks import INT4, block_shape, join
from windlass.kernels.native.compiler import Missing, find_compiler, native_flags
from windlass.kernels.native.loading import standing_crew
from windlass.kernels.native.product import PreparedProduct, ProductLibrary, product_library
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.settings import c_compiler, cache_folder

STEADY = 128
"""Products in the order that was learnt, after which the crew works; of the C source."""
X = torch.ones(1, 512, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def crew() -> ctypes.CDLL:
    """The one that this process's kernels have joined, or the reason why its tests are skipped."""
    compiler, library = find_compiler(c_compiler()), product_library()
    if isinstance(compiler, Missing) or isinstance(library, Missing):
        pytest.skip("there are no native kernels here")
    found = standing_crew(compiler, cache_folder() / "native", native_flags())
    assert isinstance(found, ctypes.CDLL), found.reason
    return found


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def made_product(seed: int) -> PreparedProduct:
    """Of a matrix that is large enough to be shared out."""
    draw, library = torch.Generator().manual_seed(seed), product_library()
    assert isinstance(library, ProductLibrary)
    high, deep, _ = block_shape(INT4, 1024, 512)
    codes = torch.randint(0, 16, (high, deep, 16, 64), generator=draw)
    scales, offsets = torch.randn(2, high, deep, 16, generator=draw)
    return PreparedProduct(library, PackedMatrix(INT4, (1024, 512), {"blocks": join(INT4, codes, scales, offsets)}))


def alone(product: PreparedProduct) -> torch.Tensor:
    torch.set_num_threads(1)
    y = product(X)
    torch.set_num_threads(2)
    return y


@pytest.fixture(scope="module")
def products(crew: ctypes.CDLL) -> list[tuple[PreparedProduct, torch.Tensor]]:
    """Products, and what one thread makes of them."""
    made = [made_product(seed) for seed in range(3)]
    return [(product, alone(product)) for product in made]


def pass_by(products: list[tuple[PreparedProduct, torch.Tensor]], times: int) -> bool:
    """Calls all, over and over; whether all was right."""
    return all(torch.equal(product(X), wanted) for _ in range(times) for product, wanted in products)


def test_it_works_once_the_order_is_known(
    crew: ctypes.CDLL, products: list[tuple[PreparedProduct, torch.Tensor]]
) -> None:
    assert pass_by(products, STEADY)
    before = crew.windlass_turns()
    assert pass_by(products, 20)
    assert crew.windlass_turns() == before + 60


def test_another_order_leaves_the_work_to_openmp(
    crew: ctypes.CDLL, products: list[tuple[PreparedProduct, torch.Tensor]]
) -> None:
    """Experts come in any order, and between them are products of torch's."""
    assert pass_by(products, STEADY)
    before = crew.windlass_turns()
    first, second, third = products
    for order in ((second, first, third), (first, third, second)) * 50:
        assert pass_by(list(order), 1)
    assert crew.windlass_turns() <= before + 3


def test_one_thread_and_many_rows_need_no_crew(
    crew: ctypes.CDLL, products: list[tuple[PreparedProduct, torch.Tensor]]
) -> None:
    assert pass_by(products, STEADY)
    before = crew.windlass_turns()
    for product, wanted in products:
        assert torch.equal(alone(product), wanted)
        assert torch.equal(product(X.expand(3, -1)), wanted.expand(3, -1))
    assert crew.windlass_turns() == before


def test_what_was_read_next_may_have_gone(crew: ctypes.CDLL) -> None:
    """Addresses are read ahead and never trusted."""
    for _ in range(3):
        made = [made_product(seed) for seed in range(3)]
        products = [(product, alone(product)) for product in made]
        assert pass_by(products, STEADY // 2)
        del made, products


def test_more_threads_than_before_and_fewer(
    crew: ctypes.CDLL, products: list[tuple[PreparedProduct, torch.Tensor]]
) -> None:
    assert pass_by(products, STEADY)
    for threads in (5, 2, 3):
        torch.set_num_threads(threads)
        assert pass_by(products, 10)


def test_several_callers_at_once_get_their_own_results(
    crew: ctypes.CDLL, products: list[tuple[PreparedProduct, torch.Tensor]]
) -> None:
    assert pass_by(products, STEADY)
    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(lambda _: pass_by(products, 10), range(20)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking a process that has threads
def test_a_forked_process_hires_its_own(
    crew: ctypes.CDLL, products: list[tuple[PreparedProduct, torch.Tensor]]
) -> None:
    assert pass_by(products, STEADY)
    child = os.fork()
    if not child:
        os._exit(0 if pass_by(products, 5) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pass_by(products, 5)
