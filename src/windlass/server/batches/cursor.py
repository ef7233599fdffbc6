"""Lists as OpenAI's clients leaf through them: a number of entries behind one that they name."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from windlass.server.errors.api_error import bad_request

MOST = 10000


class Named(Protocol):
    """What has an id."""

    @property
    def id(self) -> str:
        """Of its own."""
        ...


T = TypeVar("T", bound=Named)


def leaf(entries: Sequence[T], after: str | None, limit: int) -> tuple[list[T], bool]:
    """The entries behind that of the id `after`, and whether there are more. Raises ApiError for an id of none."""
    start = 0
    if after is not None:
        places = [place for place, entry in enumerate(entries) if entry.id == after]
        if not places:
            raise bad_request(f"after {after!r:.60} is none of the entries", "after")
        start = places[0] + 1
    return list(entries[start : start + limit]), len(entries) > start + limit
