"""What prompts begin with is found by its tokens, held once, and given up when its room is wanted."""

from hypothesis import given
from hypothesis import strategies as st

from windlass.engine.prefix_tree import PrefixTree
from windlass.model.page_table import PageTable

PAGE, PAGES = 2, 10
# Few tokens, so that many sequences begin alike.
TEXTS = st.lists(st.integers(0, 1), min_size=1, max_size=9)
STEPS = st.lists(st.tuples(st.sampled_from(["begin", "keep", "release"]), st.integers(0, 4), TEXTS), max_size=60)


class World:
    """Sequences that share what the tree finds, and what every page was written with."""

    def __init__(self) -> None:
        self.table = PageTable(PAGES, PAGE)
        self.tree = PrefixTree(self.table)
        self.texts: dict[int, list[int]] = {}
        self.written: dict[int, tuple[int, ...]] = {}

    def begin(self, number: int, text: list[int]) -> None:
        found = self.tree.find(text)
        resting = sum(page in self.table.resting for page in found)
        if number in self.texts or self.table.pages_for(len(text)) - len(found) > self.table.room - resting:
            return
        for place, page in enumerate(found):
            assert self.written[page] == tuple(text[: (place + 1) * PAGE]), "a page of other tokens was found"
        self.table.begin(number, found)
        self.table.reserve(number, len(text))
        self.texts[number] = text
        for place, page in enumerate(self.table.pages[number]):
            self.written[page] = tuple(text[: (place + 1) * PAGE])

    def keep(self, number: int) -> None:
        if number in self.texts:
            self.tree.keep(self.texts[number], self.table.pages[number])

    def release(self, number: int) -> None:
        self.table.release(number)
        self.texts.pop(number, None)


@given(STEPS)
def test_only_the_same_tokens_are_found_and_no_page_is_lost(steps: list[tuple[str, int, list[int]]]) -> None:
    world = World()
    for what, number, text in steps:
        if what == "begin":
            world.begin(number, text)
        elif what == "keep":
            world.keep(number)
        else:
            world.release(number)
        world.table.check()
    for number in list(world.texts):
        world.release(number)
    assert world.table.room == PAGES
    world.tree.clear()
    world.table.check()
    assert len(world.table.free) == PAGES


def test_what_was_asked_for_longest_ago_goes_first_and_from_its_end() -> None:
    world = World()
    for number, text in enumerate(([0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1])):
        world.begin(number, text)
        world.keep(number)
    for number in range(3):
        world.release(number)
    assert len(world.tree.find([1, 1, 1, 1])) == 2
    world.tree.give_up(1)
    assert [len(world.tree.find(text)) for text in ([0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1])] == [1, 2, 2]


def test_what_is_in_use_stays() -> None:
    world = World()
    world.begin(0, [0, 0, 0, 0])
    world.keep(0)
    world.tree.clear()
    assert world.tree.find([0, 0, 0, 0]) == world.table.pages[0]
