"""Which pages of the KV cache hold which sequence; the same table serves every layer."""

from collections import Counter
from collections.abc import Sequence

from windlass.errors import BudgetError


class PageTable:
    """Which pages hold which sequence. Several may hold a page; it is free again when the last of them lets it go.

    Where full pages are packed, a sequence that goes on has one of `num_places` places for the page that is not full.
    """

    def __init__(self, num_pages: int, page_tokens: int, num_places: int = 0) -> None:
        self.num_pages, self.page_tokens, self.num_places = num_pages, page_tokens, num_places
        self.places: dict[int, int] = {}
        self._free_places = list(range(num_places - 1, -1, -1))
        self.free = list(range(num_pages - 1, -1, -1))
        self.pages: dict[int, list[int]] = {}
        self._holders = [0] * num_pages

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens take."""
        return -(-tokens // self.page_tokens)

    def reserve(self, sequence: int, tokens: int) -> None:
        """Grows a sequence's table until it covers `tokens` tokens. Raises BudgetError when no page is free."""
        table = self.pages.setdefault(sequence, [])
        needed = self.pages_for(tokens) - len(table)
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

    def share(self, sequence: int, other: int, count: int) -> None:
        """Begins a new sequence's table with the first `count` pages of another's, which both hold from then on."""
        assert sequence not in self.pages, f"sequence {sequence} has a table already"
        self.pages[sequence] = self.pages[other][:count]
        for page in self.pages[sequence]:
            self._holders[page] += 1

    def hand_over(self, sequence: int, other: int) -> None:
        """What belonged to a sequence belongs to another, which has nothing yet."""
        assert other not in self.pages, f"sequence {other} has a table already"
        self.pages[other] = self.pages.pop(sequence)
        if sequence in self.places:
            self.places[other] = self.places.pop(sequence)

    def shrink(self, sequence: int, tokens: int) -> None:
        """Lets go of the pages behind those that the first `tokens` tokens take, and of its place: it rests."""
        self._leave_place(sequence)
        table = self.pages[sequence]
        kept = self.pages_for(tokens)
        self._let_go(table[kept:])
        del table[kept:]

    def release(self, sequence: int) -> None:
        """Lets go of all of a sequence's pages, and of its place."""
        self._leave_place(sequence)
        self._let_go(self.pages.pop(sequence, []))

    def check(self) -> None:
        """Every page is free or in as many tables as are counted, and never twice in one."""
        held = Counter(page for table in self.pages.values() for page in table)
        assert [held[page] for page in range(self.num_pages)] == self._holders, "holders of pages are miscounted"
        assert all(len(set(table)) == len(table) for table in self.pages.values()), "a page is twice in one table"
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
