"""Pages are shared by count: whatever is reserved, shared and let go, none is lost and none is free twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import BudgetError
from windlass.model.page_table import PageTable

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "share", "cache", "forget", "release"]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(0, 40),
    ),
    max_size=40,
)


def step(table: PageTable, what: str, one: int, other: int, tokens: int) -> None:
    known = one in table.pages
    if what == "reserve" and table.pages_for(tokens) - len(table.pages.get(one, [])) <= len(table.free):
        table.reserve(one, tokens)
    elif what == "share" and not known and other in table.pages:
        table.begin(one, table.pages[other][: table.pages_for(tokens)])
    elif what == "cache":
        for page in table.pages.get(one, []):
            if page not in table._cached:
                table.cache(page)
    elif what == "forget" and table.resting:
        table.forget(min(table.resting))
    elif what == "release":
        table.release(one)


@given(STEPS)
def test_no_page_is_lost_or_free_twice(steps: list[tuple[str, int, int, int]]) -> None:
    table = PageTable(12, 4)
    for what, one, other, tokens in steps:
        step(table, what, one, other, tokens)
        table.check()
    for sequence in list(table.pages):
        table.release(sequence)
    table.check()
    assert table.room == 12
    for page in list(table.resting):
        table.forget(page)
    assert sorted(table.free) == list(range(12))


def test_a_shared_page_is_free_when_the_last_holder_lets_it_go() -> None:
    table = PageTable(4, 8)
    table.reserve(0, 20)
    table.begin(1, table.pages[0][:2])
    table.reserve(1, 24)
    assert table.pages[1][:2] == table.pages[0][:2]
    assert table.pages[1][2:] != table.pages[0][2:]
    assert not table.free
    table.release(0)
    assert len(table.free) == 1, "the two pages that 1 holds too are not free"
    table.release(1)
    assert len(table.free) == 4


def test_what_is_not_free_is_refused_and_nothing_changes() -> None:
    table = PageTable(2, 8)
    table.reserve(0, 16)
    with pytest.raises(BudgetError, match="the KV cache has 0 of 2 pages free, 1 are needed"):
        table.reserve(0, 17)
    table.check()


@pytest.mark.parametrize("holders", [[0, 1], [2, 2]])
def test_a_miscount_is_noticed(holders: list[int]) -> None:
    table = PageTable(2, 8)
    table.reserve(0, 16)
    table._holders[:] = holders
    with pytest.raises(AssertionError, match="miscounted"):
        table.check()
