"""Whoever holds a place in the cache: an answer that is generated, or a passage that is scored."""

from typing import Protocol

from windlass.facts.request import Request


class Reader(Protocol):
    """`number` names it in the page table; `cached` of its tokens are stored, or will be once its `leader` came so far.

    Its `request` is its own but for the answers to one request, which share their prompt.
    """

    number: int
    request: Request
    cached: int
    leader: "Reader | None"

    @property
    def length(self) -> int:
        """Tokens so far that go through the model."""
        ...

    @property
    def most_tokens(self) -> int:
        """Tokens whose keys and values may have to be stored."""
        ...

    @property
    def shareable(self) -> int:
        """Tokens at its beginning that another may read for it, since nothing is wanted of them but to be stored."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether it is an answer that has a token."""
        ...

    def ids(self, start: int, stop: int) -> list[int]:
        """Its tokens, by their places."""
        ...
