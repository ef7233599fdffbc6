"""Keys and values of one layer partly on a device and partly in host memory; the work goes where they lie.

Decode attention over host pages is computed by the host: only queries and results cross the link, while the device
goes on with its own pages and with another micro-batch. Prefill brings what came before from host pages to the device.
Partial results come together exactly, so pages may lie anywhere.

T rows of a micro-batch, S sequences that decode, B spans alike of n rows, m tokens; H query heads; Hk, Hv heads and
Dk, Dv sizes of keys and values.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention import decode_sizes
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.decode_attention import finish_decode, partial_decode
from windlass.kernels.page_store import PageStore
from windlass.kernels.partial_results import combine
from windlass.kernels.span_attention import finish, partial_attention
from windlass.kernels.token_span import TokenSpan
from windlass.memory.accelerator import Accelerator
from windlass.memory.host_lane import HostLane, HostTask
from windlass.model.layer_store import Batch

# Tokens of context that are brought to the device at once in prefill.
CONTEXT_PIECE = 4096

Partial = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class HostSide:
    """How the device reaches the host's part. `idle()` is entered while the caller waits, for others to compute."""

    accelerator: Accelerator
    lane: HostLane
    idle: Callable[[], AbstractContextManager[None]]


class TieredStore:
    """`here` holds the pages before `first_host_page`, `host` those from it on."""

    def __init__(self, here: PageStore, host: PageStore, first_host_page: int, side: HostSide) -> None:
        self.here, self.host, self.first_host_page, self.side = here, host, first_host_page, side
        self._written: HostTask[None] | None = None

    def write(self, batch: Batch, key: torch.Tensor, value: torch.Tensor) -> None:
        """See LayerStore. What belongs on the host is on its way there when this returns."""
        assert batch.host is not None and batch.here.rows is not None and batch.host.rows is not None
        if len(batch.here.rows):
            self.here.write(batch.here, key.index_select(1, batch.here.rows), value.index_select(1, batch.here.rows))
        if len(batch.host.rows):
            rows = batch.host.rows.to(key.device)
            sent = [self._download(each.index_select(1, rows)) for each in (key, value)]
            host = batch.host
            self._written = self.side.lane.submit(lambda: self.host.write(host, sent[0].result(), sent[1].result()))

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        batch: Batch,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """See LayerStore."""
        out = query.new_empty(query.shape[1], query.shape[0], self.here.values.shape[-1])
        decoding = query.index_select(1, batch.here.decode_rows).transpose(0, 1).contiguous()  # (S, H, Dk)
        begun = self._begin_on_host(decoding, batch, rule)
        fresh = key.shape[1] == query.shape[1]
        for alike in batch.here.prefill_groups:
            attended = self._prefill(query, (key, value) if fresh else None, alike, rule, sinks)
            for span, rows in zip(alike, attended, strict=True):
                out[span.row : span.row + span.length] = rows
        if batch.here.decode_spans:
            out[batch.here.decode_rows] = self._decode(decoding, begun, batch.here, rule, sinks).to(out.dtype)
        return out

    def read(self, pages: Sequence[int], stop: int, start: int = 0) -> Partial:
        """See LayerStore. Tokens on the host are brought to the device."""
        parts = [self._read_run(pages, last, first) for first, last in self._runs(pages, stop, start)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([key for key, _ in parts], dim=1), torch.cat([value for _, value in parts], dim=1)

    def copy_page(self, source: int, target: int) -> None:
        """See LayerStore."""
        from_host, to_host = source >= self.first_host_page, target >= self.first_host_page
        if from_host and to_host:
            work = partial(_copy, self.host, self._local(source), self.host, self._local(target))
            self.side.lane.submit(work).wait()
        elif to_host:
            self._put(target, [self._download(each[source].clone()) for each in (self.here.keys, self.here.values)])
        elif from_host:
            self.here.keys[target], self.here.values[target] = self._read_run([source], self.here.page_tokens, 0)
        else:
            _copy(self.here, source, self.here, target)

    def _put(self, target: int, sent: Sequence["Download"]) -> None:
        """Writes a whole page on the host: key (Hk, P, Dk) and value (Hv, P, Dv)."""

        def work() -> None:
            local = self._local(target)
            self.host.keys[local], self.host.values[local] = sent[0].result(), sent[1].result()

        self.side.lane.submit(work).wait()

    def _begin_on_host(
        self, decoding: torch.Tensor, batch: Batch, rule: AttentionRule
    ) -> HostTask[torch.Tensor] | None:
        """Sends queries (S, H, Dk) to the host, which attends to its pages -> (S, H, Dv + 1) with the log-sum-exp."""
        assert batch.host is not None
        if not batch.host.decodes_here:
            return None
        plan = batch.host.decode_plan(rule, decode_sizes(decoding.shape[1], self.host))
        if not plan.waves:
            return None
        sent, written = self._download(decoding), self._written

        def work() -> torch.Tensor:
            if written is not None:
                written.result()  # it came before on this lane: this only raises what it may have raised
            out, log_sum = partial_decode(sent.result(), self.host, plan, rule)
            packed = self.side.accelerator.host_empty((*out.shape[:2], out.shape[2] + 1), torch.float32)
            packed[..., :-1], packed[..., -1] = out, log_sum
            return packed

        return self.side.lane.submit(work)

    def _decode(
        self,
        decoding: torch.Tensor,
        begun: HostTask[torch.Tensor] | None,
        here: AttentionBatch,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """decoding (S, H, Dk) -> (S, H, Dv), float32."""
        parts: list[Partial] = []
        plan = here.decode_plan(rule, decode_sizes(decoding.shape[1], self.here)) if here.decodes_here else None
        if plan is not None and plan.waves:
            parts.append(partial_decode(decoding, self.here, plan, rule))
        if begun is not None:
            with self.side.idle():
                packed = begun.result()
            packed = self._upload(packed)
            parts.append((packed[..., :-1], packed[..., -1]))
        return finish_decode(parts[0] if len(parts) == 1 else combine(*parts), sinks)

    def _prefill(
        self,
        query: torch.Tensor,
        fresh: Partial | None,
        alike: Sequence[TokenSpan],
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """query (H, T, Dk) and the new tokens' `fresh` keys and values, if they came along -> (B, n, H, Dv)."""
        span, size = alike[0], len(alike)
        stacked = torch.cat([query[:, each.row : each.row + each.length] for each in alike])  # (B * H, n, Dk)
        stored = span.context if fresh is not None else span.total
        results = [
            partial_attention(stacked, *self._context(alike, stop, at), span.context, rule, at)
            for at, stop in _pieces(rule.first_visible(span.context), stored)
        ]
        if fresh is not None:
            key, value = (torch.cat([each[:, s.row : s.row + s.length] for s in alike]) for each in fresh)
            results.append(partial_attention(stacked, key, value, span.context, rule, span.context))
        whole = results[0]
        for result in results[1:]:
            whole = combine(whole, result)
        out = finish(*whole, None if sinks is None else sinks.repeat(size)).to(query.dtype)  # (B * H, n, Dv)
        return out.unflatten(0, (size, -1)).transpose(1, 2)

    def _context(self, alike: Sequence[TokenSpan], stop: int, start: int) -> Partial:
        """Tokens start .. stop of each span -> key (B * Hk, m, Dk), value (B * Hv, m, Dv)."""
        read = [self.read(span.pages, stop, start) for span in alike]
        return torch.cat([key for key, _ in read]), torch.cat([value for _, value in read])

    def _runs(self, pages: Sequence[int], stop: int, start: int) -> Iterator[tuple[int, int]]:
        """Tokens start .. stop cut where the sequence goes from one memory to the other."""
        size = self.here.page_tokens
        while start < stop:
            place = start // size
            on_host = pages[place] >= self.first_host_page
            while place < len(pages) and place * size < stop and (pages[place] >= self.first_host_page) == on_host:
                place += 1
            yield start, min(place * size, stop)
            start = place * size

    def _read_run(self, pages: Sequence[int], stop: int, start: int) -> Partial:
        if pages[start // self.here.page_tokens] < self.first_host_page:
            in_use = pages[: -(-stop // self.here.page_tokens)]
            return self.here.read([min(page, self.first_host_page - 1) for page in in_use], stop, start)
        local = [max(0, self._local(page)) for page in pages]
        key, value = self.side.lane.submit(lambda: self.host.read(local, stop, start)).result()
        return self._upload(key), self._upload(value)

    def _local(self, page: int) -> int:
        return page - self.first_host_page

    def _download(self, source: torch.Tensor) -> "Download":
        """Sends a tensor to the host."""
        target = self.side.accelerator.host_empty(source.shape, source.dtype)
        return Download(self.side.accelerator.download(source, target).wait, target)

    def _upload(self, source: torch.Tensor) -> torch.Tensor:
        """A copy on the device, there for what is computed from here on."""
        accelerator = self.side.accelerator
        target = accelerator.empty(source.shape, source.dtype)
        mark = accelerator.upload(source, target, [accelerator.mark()])
        with self.side.idle():
            accelerator.compute_after(mark)
        return target


@dataclass(frozen=True, slots=True)
class Download:
    """A tensor on its way to the host."""

    wait: Callable[[], None]
    target: torch.Tensor

    def result(self) -> torch.Tensor:
        """The tensor, once it has arrived."""
        self.wait()
        return self.target


def _pieces(start: int, stop: int) -> list[tuple[int, int]]:
    """Tokens start .. stop, so many at a time; none if there are none."""
    return [(at, min(at + CONTEXT_PIECE, stop)) for at in range(start, stop, CONTEXT_PIECE)]


def _copy(source: PageStore, source_page: int, target: PageStore, target_page: int) -> None:
    target.keys[target_page].copy_(source.keys[source_page])
    target.values[target_page].copy_(source.values[source_page])
