"""Which pages a decode group reads, in which blocks, and how the results of pages come together: built on the host.

Pages are taken in the order in which they lie in memory, whichever sequence owns them: a block of neighbouring pages
is then one view of the store and nothing is copied; the small queries are gathered by owner instead. Blocks are sized
to stay in the processor's cache between the products that read them.

Legend: S sequences, n items (an item is one page read for one sequence), P tokens a page, H query heads.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.decode_runs import DecodeRuns, DeviceRuns, decode_runs, runs_on
from windlass.kernels.page_read import PageRead
from windlass.kernels.token_span import TokenSpan

LARGEST_HOLE = 0.25
"""Share of foreign pages that a view may contain before gathering its own pages is cheaper."""


Reads = Callable[[Sequence[TokenSpan], AttentionRule, int, range | None], list[PageRead]]
"""What spans of length 1 read: `(spans, rule, page_tokens, held)`."""


@dataclass(frozen=True, slots=True)
class DecodeSizes:
    """Pages read together in a block, blocks whose results are held together in a wave, and query heads."""

    block_pages: int
    wave_blocks: int
    heads: int


@dataclass(frozen=True, slots=True)
class DecodeBlock:
    """Items processed together. A foreign page inside a view is an item too; its result is never used."""

    pages: slice | torch.Tensor
    """A run of the store, or the pages to gather (n,)."""
    first: int
    """Number of the block's first item in its wave."""
    owner: torch.Tensor
    """The sequence of each item (n,)."""
    edge: torch.Tensor | None
    """Items that are not visible in full (e,), None where most of the block is not."""
    hidden: torch.Tensor | None
    """Slots of the edge items (or of all) that must not be seen, (e or n, 1, 1, P) bool; None where all are visible."""

    @property
    def items(self) -> int:
        """Number of items, foreign ones included."""
        return len(self.owner)


@dataclass(frozen=True, slots=True)
class DecodeWave:
    """Blocks whose partial results are held together, and how items add up to sequences."""

    blocks: tuple[DecodeBlock, ...]
    items: int
    order: torch.Tensor
    """The real items sorted by owner (r,)."""
    owner: torch.Tensor
    """The owner of each of them (r,)."""
    counts: torch.Tensor
    """Items of each sequence (S,)."""
    head_order: torch.Tensor
    """Rows of (items * H) sorted by sequence, then head, (r * H,)."""
    head_offsets: torch.Tensor
    """Where each (sequence, head) begins in `head_order`, (S * H,)."""


@dataclass(frozen=True)
class DecodePlan:
    """What a decode group reads. How each way of attending takes it is worked out when that way is first used."""

    reads: tuple[PageRead, ...]
    """In the order of their pages."""
    sequences: int
    page_tokens: int
    sizes: DecodeSizes
    device: torch.device

    @cached_property
    def waves(self) -> tuple[DecodeWave, ...]:
        """For torch."""
        size = self.sizes.wave_blocks * self.sizes.block_pages
        cuts = range(0, len(self.reads), size)
        return tuple(
            _wave(self.reads[at : at + size], self.sequences, self.page_tokens, self.sizes, self.device) for at in cuts
        )

    @cached_property
    def single(self) -> bool:
        """Whether one block of one wave is everything and its item i is all of sequence i."""
        one_block = len(self.waves) == 1 and len(self.waves[0].blocks) == 1
        whole = one_block and len(self.reads) == self.waves[0].items
        return whole and [read.owner for read in self.reads] == [*range(self.sequences)]

    @cached_property
    def runs(self) -> DecodeRuns:
        """For the native kernel."""
        return decode_runs(self.reads, self.sequences)

    @cached_property
    def device_runs(self) -> DeviceRuns:
        """For the kernel of a device."""
        return runs_on(self.device, self.runs)


def plan_decode(
    spans: Sequence[TokenSpan],
    rule: AttentionRule,
    page_tokens: int,
    sizes: DecodeSizes,
    device: torch.device,
    held: range | None = None,
    which: Reads | None = None,
) -> DecodePlan:
    """Plans the reads of spans of length 1; only pages that `rule` lets a sequence see are read.

    With `held`, only pages of that range, numbered from its start. There may be none. `which` is `visible_reads` or
    another of its kind.
    """
    return plan_reads((which or visible_reads)(spans, rule, page_tokens, held), len(spans), page_tokens, sizes, device)


def visible_reads(
    spans: Sequence[TokenSpan], rule: AttentionRule, page_tokens: int, held: range | None = None
) -> list[PageRead]:
    """What the spans of length 1 see of their pages, in the order in which these lie."""
    every = [read for owner, span in enumerate(spans) for read in _reads(span, owner, rule, page_tokens)]
    return _in_order(every, held)


def full_reads(
    spans: Sequence[TokenSpan], rule: AttentionRule, page_tokens: int, held: range | None = None
) -> list[PageRead]:
    """As `visible_reads`, of full pages only."""
    every = [
        read
        for owner, span in enumerate(spans)
        for read in _reads(span, owner, rule, page_tokens)[: -1 if span.total % page_tokens else None]
    ]
    return _in_order(every, held)


def open_reads(
    spans: Sequence[TokenSpan], rule: AttentionRule, page_tokens: int, held: range | None = None
) -> list[PageRead]:
    """What the spans of length 1 see of the page that is not full yet, where they have one: read at their `place`.

    All of these lie where the model computes, so `held` is not looked at.
    """
    every = [
        replace(_reads(span, owner, rule, page_tokens)[-1], page=span.place)
        for owner, span in enumerate(spans)
        if span.total % page_tokens
    ]
    return _in_order(every, None)


def _in_order(reads: Iterable[PageRead], held: range | None) -> list[PageRead]:
    """Sorted by page; of those in `held` only, numbered from its start."""
    if held is not None:
        reads = (replace(read, page=read.page - held.start) for read in reads if read.page in held)
    return sorted(reads, key=lambda read: (read.page, read.owner))


def plan_reads(
    reads: Sequence[PageRead], sequences: int, page_tokens: int, sizes: DecodeSizes, device: torch.device
) -> DecodePlan:
    """Plans given reads, which are in the order of their pages."""
    return DecodePlan(tuple(reads), sequences, page_tokens, sizes, device)


def _wave(
    reads: Sequence[PageRead], sequences: int, page_tokens: int, sizes: DecodeSizes, device: torch.device
) -> DecodeWave:
    blocks: list[DecodeBlock] = []
    places: list[int] = []  # the item number of each read
    first = 0
    for at in range(0, len(reads), sizes.block_pages):
        block, offsets = _block(reads[at : at + sizes.block_pages], first, page_tokens, device)
        blocks.append(block)
        places += [first + offset for offset in offsets]
        first += block.items
    owners = [read.owner for read in reads]
    return DecodeWave(tuple(blocks), first, *_gathering(places, owners, sequences, sizes.heads, device))


def _reads(span: TokenSpan, owner: int, rule: AttentionRule, page_tokens: int) -> list[PageRead]:
    first = rule.first_visible(span.context)
    return [
        PageRead(
            span.pages[number],
            owner,
            max(0, first - number * page_tokens),
            min(page_tokens, span.total - number * page_tokens),
        )
        for number in range(first // page_tokens, math.ceil(span.total / page_tokens))
    ]


def _block(
    reads: Sequence[PageRead], first: int, page_tokens: int, device: torch.device
) -> tuple[DecodeBlock, list[int]]:
    """The block and the number, inside it, of each read's item."""
    low, high = reads[0].page, reads[-1].page + 1
    distinct = all(one.page != next_one.page for one, next_one in zip(reads, reads[1:], strict=False))
    if distinct and high - low <= len(reads) * (1 + LARGEST_HOLE):
        pages: slice | torch.Tensor = slice(low, high)
        offsets, size = [read.page - low for read in reads], high - low
    else:
        pages = torch.tensor([read.page for read in reads], device=device)
        offsets, size = list(range(len(reads))), len(reads)
    owner = [0] * size
    for offset, read in zip(offsets, reads, strict=True):
        owner[offset] = read.owner
    edge, hidden = _hidden(reads, offsets, size, page_tokens, device)
    return DecodeBlock(pages, first, torch.tensor(owner, device=device), edge, hidden), offsets


def _hidden(
    reads: Sequence[PageRead], offsets: Sequence[int], size: int, page_tokens: int, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    partly = [(at, read) for at, read in zip(offsets, reads, strict=True) if read.stop - read.start < page_tokens]
    if not partly:
        return None, None
    edge = torch.tensor([at for at, _ in partly], device=device)
    start = torch.tensor([read.start for _, read in partly], device=device)[:, None]
    stop = torch.tensor([read.stop for _, read in partly], device=device)[:, None]
    slot = torch.arange(page_tokens, device=device)
    hidden = ((slot < start) | (slot >= stop))[:, None, None]
    if len(partly) * 2 < size:
        return edge, hidden
    return None, hidden.new_zeros(size, 1, 1, page_tokens).index_copy_(0, edge, hidden)


def _gathering(
    places: Sequence[int], owners: Sequence[int], sequences: int, heads: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """order, owner, counts, head_order and head_offsets of a wave."""
    owner, by_owner = torch.tensor(owners).sort(stable=True)
    order = torch.tensor(places)[by_owner]
    counts = torch.bincount(owner, minlength=sequences)
    head = torch.arange(heads)[:, None]
    head_order = torch.cat([(segment * heads + head).flatten() for segment in order.split(counts.tolist())])
    head_counts = counts.repeat_interleave(heads)
    head_offsets = head_counts.cumsum(0) - head_counts
    return order.to(device), owner.to(device), counts.to(device), head_order.to(device), head_offsets.to(device)
