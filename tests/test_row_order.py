"""Rows are asked in an order that wastes least, each once."""

from hypothesis import given
from hypothesis import strategies as st

from windlass.planner.row_order import SHARED, row_order

HEAD = tuple(range(SHARED))


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=2 * SHARED), st.integers(1, 9)), max_size=9))
def test_every_row_is_asked_once(rows: list[tuple[list[int], int]]) -> None:
    order = row_order([prompt for prompt, _ in rows], [length for _, length in rows])
    assert sorted(order) == list(range(len(rows)))


def test_the_longest_begins_first() -> None:
    assert row_order([(1,), (2, 3), (4,)], [5, 1, 9]) == [2, 0, 1]


def test_rows_that_begin_alike_stand_together_where_the_longest_of_them_would() -> None:
    prompts = [(*HEAD, 1), (7,) * 90, (*HEAD, 2, 3), (9,) * 20]
    assert row_order(prompts, [1, 1, 30, 1]) == [2, 0, 1, 3]


def test_short_prompts_share_too_little_to_be_kept_together() -> None:
    assert row_order([(1, 2), (1, 2, 3, 4), (1, 2)], [5, 1, 9]) == [2, 0, 1]
