"""Pages that hold what prompts began with, found by their tokens: what many sequences share is computed once.

A radix tree over full pages: a node is a page and the tokens in it, below the page that comes before it. The tree holds
its pages as a sequence does; those that nobody else holds rest, and the ones that were asked for longest ago go when
their room is wanted. Pages lie wherever they were filled: on a device, in host memory or on disk. RadixAttention
(Zheng et al., SGLang, 2024, section 3) shares so by token; here it is by whole pages, which attention reads anyway.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from windlass.model.page_table import PageTable

Tokens = tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Node:
    """A full page below another; the root has neither page nor parent."""

    page: int
    tokens: Tokens
    parent: "_Node | None"
    children: dict[Tokens, "_Node"] = field(default_factory=dict)


class PrefixTree:
    """Over the pages of one table, which asks it for room when no page is free."""

    def __init__(self, table: PageTable) -> None:
        self._table = table
        self._root = _Node(-1, (), None)
        # Least recently asked for first. A node is renewed after those below it, so the first is always a leaf.
        self._order: OrderedDict[int, _Node] = OrderedDict()
        table.reclaim = self.give_up

    def find(self, token_ids: Sequence[int]) -> list[int]:
        """The pages that hold the longest known beginning of the tokens, whole pages of it."""
        path = self._path(token_ids)
        self._renew(path)
        return [node.page for node in path]

    def keep(self, token_ids: Sequence[int], pages: Sequence[int]) -> None:
        """Keeps the `pages` that these tokens fill, in order.

        Where the same tokens are known in another page that one stays, and what comes behind is not kept: whoever holds
        a page of the tree holds those before it, so that none rests that could not be given up.
        """
        node, path = self._root, list[_Node]()
        for page, tokens in zip(pages, self._cut(token_ids), strict=False):
            if tokens not in node.children:
                node.children[tokens] = _Node(page, tokens, node)
                self._order[page] = node.children[tokens]
                self._table.cache(page)
            elif node.children[tokens].page != page:
                break
            node = node.children[tokens]
            path.append(node)
        self._renew(path)

    def give_up(self, count: int) -> None:
        """Makes `count` pages free, or as many as rest, those first that were asked for longest ago."""
        for page in list(self._order):
            if count <= 0:
                return
            if page in self._table.resting:
                self._drop(page)
                count -= 1

    def clear(self) -> None:
        """Gives up every page that rests."""
        self.give_up(len(self._order))

    def _drop(self, page: int) -> None:
        node = self._order.pop(page)
        assert node.parent is not None and not node.children, "a page went before those that follow it"
        del node.parent.children[node.tokens]
        self._table.forget(page)

    def _path(self, token_ids: Sequence[int]) -> list[_Node]:
        node, path = self._root, list[_Node]()
        for tokens in self._cut(token_ids):
            if tokens not in node.children:
                break
            node = node.children[tokens]
            path.append(node)
        return path

    def _renew(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):
            self._order.move_to_end(node.page)

    def _cut(self, token_ids: Sequence[int]) -> list[Tokens]:
        """The tokens of each full page."""
        size = self._table.page_tokens
        return [tuple(token_ids[start : start + size]) for start in range(0, len(token_ids) - size + 1, size)]
