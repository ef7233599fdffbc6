"""Which pages of the KV cache hold which sequence; the same table serves every layer."""

from collections import Counter
from collections.abc import Callable, Sequence

from windlass.errors import BudgetError


class PageTable:
    """Which pages hold which sequence. Several may hold a page; it is free again when the last of them lets it go.

    Pages may be `cached` beside that: held for sequences to come. Those that nothing else holds are `resting`, and
    `reclaim` is asked to free some of them when no other page is free. Where full pages are packed, a sequence that
    goes on has one of `num_places` places for the page that is not full.
    """

    def __init__(self, num_pages: int, page_tokens: int, num_places: int = 0) -> None:
        self.num_pages, self.page_tokens, self.num_places = num_pages, page_tokens, num_places
        self.places: dict[int, int] = {}
        self._free_places = list(range(num_places - 1, -1, -1))
        self.free = list(range(num_pages - 1, -1, -1))
        self.pages: dict[int, list[int]] = {}
        self._holders = [0] * num_pages
        self._cached: set[int] = set()
        self.resting: set[int] = set()
        self.reclaim: Callable[[int], None] = _nothing_rests

    @property
    def room(self) -> int:
        """Pages that are free or would be, if they were asked for."""
        return len(self.free) + len(self.resting)

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens take."""
        return -(-tokens // self.page_tokens)

    def reserve(self, sequence: int, tokens: int) -> None:
        """Grows a sequence's table until it covers `tokens` tokens. Raises BudgetError when no page is free."""
        table = self.pages.setdefault(sequence, [])
        needed = self.pages_for(tokens) - len(table)
        if needed > len(self.free):
            self.reclaim(needed - len(self.free))
        if needed > len(self.free):
            raise BudgetError(
                f"the KV cache has {len(self.free)} of {self.num_pages} pages free, {needed} are needed; "
                "use a smaller --block-size or a larger --host-memory"
            )
        if self.num_places and sequence not in self.places:
            self.places[sequence] = self._free_places.pop()
        for _ in range(needed):
            page = self.free.pop()
            self._holders[page] = 1
            table.append(page)

    def begin(self, sequence: int, pages: Sequence[int]) -> None:
        """Begins a new sequence's table with pages that others hold or that are cached; it holds them too."""
        assert sequence not in self.pages, f"sequence {sequence} has a table already"
        self.pages[sequence] = list(pages)
        for page in pages:
            self._holders[page] += 1
            self.resting.discard(page)

    def cache(self, page: int) -> None:
        """Holds a page, which some sequence holds, until it is forgotten."""
        assert self._holders[page] and page not in self._cached, f"page {page} cannot be cached"
        self._holders[page] += 1
        self._cached.add(page)

    def forget(self, page: int) -> None:
        """Lets go of a page that was cached."""
        self._cached.remove(page)
        self.resting.discard(page)
        self._let_go([page])

    def release(self, sequence: int) -> None:
        """Lets go of all of a sequence's pages, and of its place."""
        self._leave_place(sequence)
        self._let_go(self.pages.pop(sequence, []))

    def check(self) -> None:
        """Every page is free or in as many tables as are counted, and never twice in one."""
        held = Counter(page for table in self.pages.values() for page in table) + Counter(self._cached)
        assert [held[page] for page in range(self.num_pages)] == self._holders, "holders of pages are miscounted"
        assert all(len(set(table)) == len(table) for table in self.pages.values()), "a page is twice in one table"
        assert self.resting == {page for page in self._cached if held[page] == 1}, "pages that rest are miscounted"
        places = sorted([*self.places.values(), *self._free_places])
        assert places == list(range(self.num_places)), f"{len(places)} places accounted for of {self.num_places}"
        accounted = sorted([*held, *self.free])
        assert accounted == list(range(self.num_pages)), f"{len(accounted)} pages accounted for of {self.num_pages}"

    def _leave_place(self, sequence: int) -> None:
        if sequence in self.places:
            self._free_places.append(self.places.pop(sequence))

    def _let_go(self, pages: Sequence[int]) -> None:
        for page in reversed(pages):
            self._holders[page] -= 1
            if not self._holders[page]:
                self.free.append(page)
            elif self._holders[page] == 1 and page in self._cached:
                self.resting.add(page)


def _nothing_rests(count: int) -> None:
    """Where nothing is cached there is nothing to reclaim."""
