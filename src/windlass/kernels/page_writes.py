"""Where the new tokens of a micro-batch go in a cache that packs its full pages: worked out once, used by every layer.

A sequence has one place for the page that is not full yet. What goes on with that page is stored first; pages that are
full then are packed; pages that a run of tokens fills by itself are packed as they come; what is left opens the next.

Legend: P tokens a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from windlass.kernels.token_span import TokenSpan


@dataclass(frozen=True, slots=True)
class Slots:
    """Rows of the micro-batch, and place and slot of each; int64."""

    rows: torch.Tensor
    places: torch.Tensor
    slots: torch.Tensor


@dataclass(frozen=True, slots=True)
class BegunPage:
    """A page of which `slots` slots were full before. `replaced`: the same span fills it and opens another."""

    page: int
    place: int
    slots: int
    replaced: bool


@dataclass(frozen=True, slots=True)
class PageWrites:
    """`begun` go on with an open page; then page filled_pages[i] is full in filled[i]. `whole` are rows of whole pages,
    P after P, and `whole_pages` those pages. `opened` begin opened_pages[i] in opened_places[i].
    """

    begun: Slots
    filled: torch.Tensor
    filled_pages: tuple[int, ...]
    whole: torch.Tensor
    whole_pages: tuple[int, ...]
    opened: Slots
    opened_places: torch.Tensor
    opened_pages: tuple[int, ...]
    begun_pages: tuple[BegunPage, ...]


@dataclass(slots=True)
class _Lists:
    rows: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    def add(self, row: int, place: int, slots: range) -> None:
        self.rows += range(row, row + len(slots))
        self.places += [place] * len(slots)
        self.slots += slots

    def on(self, device: torch.device) -> Slots:
        return Slots(
            *(torch.tensor(each, dtype=torch.int64, device=device) for each in (self.rows, self.places, self.slots))
        )


def page_writes(spans: Sequence[TokenSpan], page_tokens: int, device: torch.device) -> PageWrites:
    """The writes of the spans of a micro-batch."""
    begun, opened, whole = _Lists(), _Lists(), list[int]()
    filled, whole_pages = list[tuple[int, int]](), list[int]()
    openings, begun_pages = list[tuple[int, int]](), list[BegunPage]()
    for span in spans:
        page, slot = divmod(span.context, page_tokens)
        row, end = span.row, span.row + span.length
        if slot:
            count = min(page_tokens - slot, span.length)
            replaced = count < span.length and span.total % page_tokens != 0
            begun_pages.append(BegunPage(span.pages[page], span.place, slot, replaced))
            begun.add(row, span.place, range(slot, slot + count))
            row += count
            if slot + count == page_tokens:
                filled.append((span.place, span.pages[page]))
                page += 1
        while end - row >= page_tokens:
            whole += range(row, row + page_tokens)
            whole_pages.append(span.pages[page])
            row, page = row + page_tokens, page + 1
        if row < end and (row > span.row or not slot):
            opened.add(row, span.place, range(end - row))
            openings.append((span.place, span.pages[page]))
    return PageWrites(
        begun.on(device),
        torch.tensor([place for place, _ in filled], dtype=torch.int64, device=device),
        tuple(page for _, page in filled),
        torch.tensor(whole, dtype=torch.int64, device=device),
        tuple(whole_pages),
        opened.on(device),
        torch.tensor([place for place, _ in openings], dtype=torch.int64, device=device),
        tuple(page for _, page in openings),
        tuple(begun_pages),
    )
