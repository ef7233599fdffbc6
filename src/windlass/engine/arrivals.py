"""Requests that come while others run: the seam between a generation that never ends and whoever asks it."""

from collections.abc import Collection
from typing import Protocol

from windlass.engine.block_state import BlockState
from windlass.errors import UsageError
from windlass.facts.request import Request


class Arrivals(Protocol):
    """Asked by the thread that runs the model, between two passes."""

    @property
    def closed(self) -> bool:
        """Whether nothing more comes; what runs is left after the pass in flight."""
        ...

    def next(self, idle: bool) -> Request | None:
        """The next request, None where there is none now.

        While the block is `idle` this may wait: until there is one, or it is closed.
        """
        ...

    def withdrawn(self) -> Collection[str]:
        """Ids of requests, returned by `next`, that have been given up since this was last asked."""
        ...

    def refused(self, request_id: str, error: UsageError) -> None:
        """A request that `next` returned is none that this model takes."""
        ...

    def tell(self, state: BlockState) -> None:
        """How the block stands: before a pass, and after it."""
        ...
