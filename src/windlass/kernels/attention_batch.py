"""What attention must know of a micro-batch, worked out once on the host and used by every layer.

Legend: T rows of the micro-batch, S sequences that bring one token (the decode group), P tokens a page.
"""

from collections.abc import Sequence
from functools import cached_property

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.decode_plan import DecodePlan, DecodeSizes, Reads, plan_decode, visible_reads
from windlass.kernels.page_writes import PageWrites, page_writes
from windlass.kernels.token_span import TokenSpan

GROUP_TOKENS = 1024
"""Stored tokens of spans attended together: enough to make short prompts cheap, few enough for small copies."""


class AttentionBatch:
    """The slots of all rows, and which spans decode (length 1) and which prefill.

    With `held` it is the view of a store that holds only those pages, numbered from 0 there: rows that are stored
    elsewhere have no slot, and pages elsewhere are not read.
    """

    def __init__(
        self, spans: Sequence[TokenSpan], page_tokens: int, device: torch.device | str, held: range | None = None
    ) -> None:
        """Raises AssertionError for a span whose pages do not cover it."""
        self.held = held
        self.spans = tuple(sorted(spans, key=lambda span: span.row))
        self.page_tokens = page_tokens
        self.device = torch.device(device)
        self.tokens = sum(span.length for span in self.spans)
        for span in self.spans:
            assert len(span.pages) * page_tokens >= span.total, (
                f"{len(span.pages)} pages cannot hold {span.total} tokens"
            )
        self.decode_spans = tuple(span for span in self.spans if span.length == 1)
        self.prefill_spans = tuple(span for span in self.spans if span.length > 1)
        self.prefill_groups = _alike(self.prefill_spans)
        self.decode_rows = self._index([span.row for span in self.decode_spans])
        self.rows, self.row_page, self.row_slot = self._places()
        one = self.spans[0] if self.tokens == 1 and held is None else None
        self.only_slot = (one.pages[one.context // page_tokens], one.context % page_tokens) if one else None
        opened = [page for span in self.spans for page in _opened(span, page_tokens) if held is None or page in held]
        self.opened_pages = self._index([self.local(page) for page in opened]) if opened else None
        self._plans: dict[tuple[int | None, int | None, DecodeSizes, Reads], DecodePlan] = {}

    def decode_plan(self, rule: AttentionRule, sizes: DecodeSizes, which: Reads = visible_reads) -> DecodePlan:
        """The reads of the decode group under `rule`, made for the first layer that asks and kept for the others."""
        key = (rule.window, rule.chunk, sizes, which)
        if key not in self._plans:
            spans, tokens = self.decode_spans, self.page_tokens
            self._plans[key] = plan_decode(spans, rule, tokens, sizes, self.device, self.held, which)
        return self._plans[key]

    def local(self, page: int) -> int:
        """The number of a page in the store."""
        return page if self.held is None else page - self.held.start

    @cached_property
    def page_writes(self) -> PageWrites:
        """Where the new tokens go in a store that packs its full pages."""
        return page_writes(self.spans, self.page_tokens, self.device)

    @property
    def decodes_here(self) -> bool:
        """Whether the store holds a page of a sequence that decodes."""
        if self.held is None:
            return bool(self.decode_spans)
        return any(page in self.held for span in self.decode_spans for page in _in_use(span, self.page_tokens))

    def _places(self) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """The rows stored here (None for all), and page and slot of each."""
        page, slot = torch.empty(2, self.tokens, dtype=torch.int64)
        for span in self.prefill_spans:
            positions = torch.arange(span.context, span.total)
            own = slice(span.row, span.row + span.length)
            page[own] = torch.tensor(span.pages)[positions // self.page_tokens]
            slot[own] = positions % self.page_tokens
        if self.decode_spans:
            rows = torch.tensor([span.row for span in self.decode_spans])
            newest = [divmod(span.context, self.page_tokens) for span in self.decode_spans]
            page[rows] = torch.tensor([span.pages[at] for span, (at, _) in zip(self.decode_spans, newest, strict=True)])
            slot[rows] = torch.tensor([at for _, at in newest])
        if self.held is None:
            return None, page.to(self.device), slot.to(self.device)
        here = (page >= self.held.start) & (page < self.held.stop)
        rows = here.nonzero()[:, 0]
        return rows.to(self.device), (page[here] - self.held.start).to(self.device), slot[here].to(self.device)

    def _index(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)


def _alike(spans: Sequence[TokenSpan]) -> tuple[tuple[TokenSpan, ...], ...]:
    """Groups of equal length and context, each of at most `GROUP_TOKENS` stored tokens (or one span)."""
    groups: dict[tuple[int, int], list[TokenSpan]] = {}
    for span in spans:
        groups.setdefault((span.length, span.context), []).append(span)
    sizes = {alike: max(1, GROUP_TOKENS // sum(alike)) for alike in groups}
    return tuple(
        tuple(group[at : at + sizes[alike]])
        for alike, group in groups.items()
        for at in range(0, len(group), sizes[alike])
    )


def _in_use(span: TokenSpan, page_tokens: int) -> Sequence[int]:
    """The pages that hold the span's sequence."""
    return span.pages[: -(-span.total // page_tokens)]


def _opened(span: TokenSpan, page_tokens: int) -> list[int]:
    """Pages that the span begins and leaves partly empty (at most one: the last)."""
    last = (span.total - 1) // page_tokens
    partly = span.total % page_tokens != 0
    return [span.pages[last]] if partly and span.context <= last * page_tokens else []
