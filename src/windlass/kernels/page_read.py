"""One page, as one sequence reads it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageRead:
    """Slots `start .. stop` of `page`, read for decode sequence `owner`."""

    page: int
    owner: int
    start: int
    stop: int
