"""Pages for a block of sequences of known lengths: as many as they take, never too few for the longest."""

from hypothesis import given
from hypothesis import strategies as st

from windlass.facts.workload import Workload

LENS = st.lists(st.integers(1, 300), min_size=1, max_size=20)


def workload(lens: list[int]) -> Workload:
    return Workload(len(lens), max(lens), 1, reserved_lens=tuple(lens))


@given(LENS, st.integers(1, 25), st.integers(1, 64))
def test_they_hold_the_longest_and_no_more_than_all_as_long(lens: list[int], block: int, page: int) -> None:
    longest = -(-max(lens) // page)
    pages = workload(lens).pages(block, page)
    assert longest <= pages <= max(block, 1) * longest
    assert pages <= Workload(len(lens), max(lens), 1).pages(block, page)


@given(LENS, st.integers(1, 64))
def test_all_of_them_fit_together(lens: list[int], page: int) -> None:
    assert workload(lens).pages(len(lens), page) == sum(-(-length // page) for length in lens)


def test_a_few_long_rows_among_many_do_not_decide() -> None:
    assert workload([640] + 99 * [64]).pages(32, 64) == 41  # 32 * 1.09 pages, and an eighth more
    assert workload([640] + 99 * [64]).pages(4, 64) == 10
