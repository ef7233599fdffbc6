"""Keys and values of one layer on a device, in host memory and on disk; the work goes where they lie.

Decode attention over pages that are not on the device is computed by the host: only queries and results cross the link,
while the device goes on with its own pages and with another micro-batch. Prefill brings what came before to the device.
Partial results come together exactly, so pages may lie anywhere.

T rows of a micro-batch, S sequences that decode, m tokens; H query heads; Hk, Hv heads and
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
from windlass.kernels.token_span import TokenSpan
from windlass.memory.accelerator import Accelerator
from windlass.memory.host_lane import HostLane, HostTask
from windlass.model.context_attention import prefill_rows
from windlass.model.disk_pages import DiskPages
from windlass.model.layer_store import Batch

Partial = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class HostSide:
    """How the device reaches the host's part. `idle()` is entered while the caller waits, for others to compute."""

    accelerator: Accelerator
    lane: HostLane
    idle: Callable[[], AbstractContextManager[None]]


class TieredStore:
    """`here` holds the first pages, `host` those behind them, `disk` the last; of the latter two one may be missing."""

    def __init__(
        self, here: PageStore, host: PageStore | None, disk: DiskPages | None, side: HostSide, layer: int = 0
    ) -> None:
        self.here, self.host, self.disk, self.side = here, host, disk, side
        self._name = f"layer {layer}"
        self.first_host_page = here.num_pages
        self.first_disk_page = here.num_pages + (host.num_pages if host is not None else 0)
        self._written: HostTask[None] | None = None

    def write(self, batch: Batch, key: torch.Tensor, value: torch.Tensor) -> None:
        """See LayerStore. What belongs on the host is on its way there when this returns."""
        assert batch.here.rows is not None
        if len(batch.here.rows):
            self.here.write(batch.here, key.index_select(1, batch.here.rows), value.index_select(1, batch.here.rows))
        for there, store in ((batch.host, self.host), (batch.disk, self.disk)):
            if there is not None and store is not None and there.rows is not None and len(there.rows):
                rows = there.rows.to(key.device)
                sent = [self._download(each.index_select(1, rows), "keys and values") for each in (key, value)]
                self._written = self.side.lane.submit(partial(_store, store, there, *sent), f"store {self._name}")

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
        prefill_rows(out, query, key, value, batch.here.prefill_groups, rule, sinks, self.read)
        if batch.here.decode_spans:
            out[batch.here.decode_rows] = self._decode(decoding, begun, batch.here, rule, sinks).to(out.dtype)
        return out

    def read(self, span: TokenSpan, stop: int, start: int = 0) -> Partial:
        """See LayerStore. Tokens elsewhere are brought to the device."""
        pages = span.pages
        parts = [self._read_run(pages, last, first) for first, last in self._runs(pages, stop, start)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([key for key, _ in parts], dim=1), torch.cat([value for _, value in parts], dim=1)

    def copy_page(self, source: int, target: int, places: tuple[int, int] | None = None) -> None:
        """See LayerStore."""
        key, value = self._read_run([source], self.here.page_tokens, 0)
        if target < self.first_host_page:
            self.here.keys[target], self.here.values[target] = key, value
            return
        sent = [self._download(each, "keys and values") for each in (key, value)]
        self.side.lane.submit(partial(self._put, target, *sent), f"store {self._name}").wait()

    def _put(self, target: int, key: "Download", value: "Download") -> None:
        """Stores a whole page on the host or on disk: key (Hk, P, Dk) and value (Hv, P, Dv)."""
        if target >= self.first_disk_page:
            assert self.disk is not None
            self.disk.put(target - self.first_disk_page, key.result(), value.result())
        else:
            assert self.host is not None
            local = target - self.first_host_page
            self.host.keys[local], self.host.values[local] = key.result(), value.result()

    def _begin_on_host(
        self, decoding: torch.Tensor, batch: Batch, rule: AttentionRule
    ) -> HostTask[torch.Tensor] | None:
        """Sends queries (S, H, Dk) to the host, which attends to its pages -> (S, H, Dv + 1) with the log-sum-exp."""
        if not any(there is not None and there.decodes_here for there in (batch.host, batch.disk)):
            return None
        sent, written = self._download(decoding, "queries"), self._written

        def work() -> torch.Tensor:
            if written is not None:
                written.result()  # it came before on this lane: this only raises what it may have raised
            return self._attend_on_host(sent.result(), batch, rule)

        return self.side.lane.submit(work, f"attend {self._name}")

    def _attend_on_host(self, query: torch.Tensor, batch: Batch, rule: AttentionRule) -> torch.Tensor:
        """query (S, H, Dk) -> (S, H, Dv + 1): the result and, last, the log-sum-exp; float32."""
        sequences, heads, _ = query.shape
        out = query.new_zeros(sequences, heads, self.here.values.shape[-1], dtype=torch.float32)
        whole: Partial = (out, query.new_full((sequences, heads), -torch.inf, dtype=torch.float32))
        if self.host is not None and batch.host is not None:
            plan = batch.host.decode_plan(rule, decode_sizes(heads, self.host))
            if plan.reads:
                whole = partial_decode(query, self.host, plan, rule)
        if self.disk is not None and batch.disk is not None:
            more = self.disk.partial(query, batch.disk, rule, batch.turn)
            whole = whole if more is None else combine(whole, more)
        packed = self.side.accelerator.host_empty((sequences, heads, out.shape[-1] + 1), torch.float32)
        packed[..., :-1], packed[..., -1] = whole
        return packed

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
        if plan is not None and plan.reads:
            parts.append(partial_decode(decoding, self.here, plan, rule))
        if begun is not None:
            with self.side.idle():
                packed = begun.result()
            packed = self._upload(packed, "attention")
            parts.append((packed[..., :-1], packed[..., -1]))
        return finish_decode(parts[0] if len(parts) == 1 else combine(*parts), sinks)

    def _runs(self, pages: Sequence[int], stop: int, start: int) -> Iterator[tuple[int, int]]:
        """Tokens start .. stop cut where the sequence goes from one memory to another."""
        size = self.here.page_tokens
        while start < stop:
            place = start // size
            memory = self._memory(pages[place])
            while place * size < stop and self._memory(pages[place]) == memory:
                place += 1
                if place == len(pages):
                    break
            yield start, min(place * size, stop)
            start = place * size

    def _memory(self, page: int) -> int:
        """0 where the model computes, 1 for the host, 2 for disk."""
        return (page >= self.first_host_page) + (page >= self.first_disk_page)

    def _read_run(self, pages: Sequence[int], stop: int, start: int) -> Partial:
        """Tokens that lie in one memory -> where the model computes."""
        memory = self._memory(pages[start // self.here.page_tokens])
        first = (0, self.first_host_page, self.first_disk_page)[memory]
        # Pages of the sequence in other memories are not looked at; any number that exists will do for them.
        local = [page - first if self._memory(page) == memory else 0 for page in pages]
        if memory == 0:
            return self.here.read(local, stop, start)
        store = self.host if memory == 1 else self.disk
        assert store is not None
        read = self.side.lane.submit(partial(store.read, local, stop, start), f"fetch {self._name}")
        with self.side.idle():
            key, value = read.result()
        return self._upload(key, "keys and values"), self._upload(value, "keys and values")

    def _download(self, source: torch.Tensor, what: str) -> "Download":
        """Sends a tensor to the host. `what` it is, is for timelines."""
        target = self.side.accelerator.host_empty(source.shape, source.dtype)
        mark = self.side.accelerator.download(source, target, name=f"download {what} {self._name}")
        return Download(mark.wait, target)

    def _upload(self, source: torch.Tensor, what: str) -> torch.Tensor:
        """A copy on the device, there for what is computed from here on."""
        accelerator = self.side.accelerator
        target = accelerator.empty(source.shape, source.dtype)
        name = f"upload {what} {self._name}"
        mark = accelerator.upload(source, target, [accelerator.mark()], name, urgent=True)
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


def _store(store: PageStore | DiskPages, batch: AttentionBatch, key: Download, value: Download) -> None:
    """Writes what has arrived: key (Hk, r, Dk), value (Hv, r, Dv)."""
    store.write(batch, key.result(), value.result())
