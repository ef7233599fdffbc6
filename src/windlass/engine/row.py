"""The packed row of a pass: whose tokens stand where.

T tokens of the row; a micro-batch is rows start:stop of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.token_span import TokenSpan
from windlass.model.layer_store import Batch
from windlass.model.page_table import PageTable
from windlass.model.rotary import SequenceLengths


@dataclass(frozen=True, slots=True)
class RowSpan:
    """New tokens of one sequence: `token_ids` after `context` tokens already in the cache.

    `alone` is the sequence's length in a forward of its own: the whole prompt while it is read, however many pieces
    that takes, the tokens so far while it decodes. The logits of the last `wanted` of the tokens are asked for.
    """

    sequence: int
    token_ids: Sequence[int]
    context: int
    alone: int
    wanted: int


@dataclass(frozen=True, slots=True)
class RowSlice:
    """Rows `start:stop` as one micro-batch: what attention and the rotary tables must know of them."""

    start: int
    stop: int
    batch: Batch
    lengths: SequenceLengths


@dataclass(frozen=True, slots=True)
class Pages:
    """How the cache is cut into pages of `tokens` tokens.

    The first `here` pages lie where the model computes, then come `host` pages in host memory beside a device, and
    `disk` pages on disk.
    """

    tokens: int
    here: int
    host: int = 0
    disk: int = 0

    def batch(self, spans: Sequence[TokenSpan], device: torch.device, turn: int) -> Batch:
        """The spans as attention sees them in each memory."""
        if not self.host and not self.disk:
            return Batch(AttentionBatch(spans, self.tokens, device), turn=turn)
        end = self.here + self.host
        here = AttentionBatch(spans, self.tokens, device, range(self.here))
        host = AttentionBatch(spans, self.tokens, "cpu", range(self.here, end)) if self.host else None
        disk = AttentionBatch(spans, self.tokens, "cpu", range(end, end + self.disk)) if self.disk else None
        return Batch(here, host, disk, turn)


class Row:
    """A pass's tokens laid out in one row, without padding."""

    def __init__(self, spans: Sequence[RowSpan], device: torch.device) -> None:
        self.spans = tuple(spans)
        ids = [token for span in spans for token in span.token_ids]
        positions = [span.context + i for span in spans for i in range(len(span.token_ids))]
        ends, end = [], 0
        for span in spans:
            end += len(span.token_ids)
            ends.append(end)
        self.tokens = len(ids)
        self.starts = [stop - len(span.token_ids) for span, stop in zip(spans, ends, strict=True)]
        self.ids = torch.tensor([ids], dtype=torch.int64, device=device)  # (1, T)
        self.positions = torch.tensor([positions], dtype=torch.int64, device=device)  # (1, T)
        wanted = [row for span, stop in zip(spans, ends, strict=True) for row in range(stop - span.wanted, stop)]
        self.wanted = torch.tensor(wanted, dtype=torch.int64, device=device)  # (R,)
        self.device = device

    def cut(self, start: int, stop: int, table: PageTable, pages: Pages) -> RowSlice:
        """The micro-batch of rows start:stop; `table` gives each sequence's pages, and its place if it has one."""
        spans, rows, lengths = [], [], []
        for span, first in zip(self.spans, self.starts, strict=True):
            low, high = max(first, start), min(first + len(span.token_ids), stop)
            if low < high:
                context, who = span.context + low - first, span.sequence
                spans.append(TokenSpan(low - start, high - low, context, table.pages[who], table.places.get(who, 0)))
                rows.append((low - start, high - start))
                lengths.append(span.alone)
        return RowSlice(
            start, stop, pages.batch(spans, self.device, start), SequenceLengths(tuple(rows), tuple(lengths))
        )
