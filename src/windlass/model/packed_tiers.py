"""The packed pages of one layer in more than one memory: what is sent from one to another is always packed.

Decode attention over pages that are not where the model computes is the host's work; only queries and results cross the
link, while the device goes on. Without a device the host does all of it, one memory after the other.

S sequences that decode; H query heads; Dk, Dv sizes of keys and values.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention import decode_sizes
from windlass.kernels.decode_attention import partial_decode
from windlass.kernels.decode_plan import full_reads
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.partial_results import combine
from windlass.memory.host_lane import HostTask
from windlass.model.layer_store import Batch
from windlass.model.packed_disk import PackedDisk
from windlass.model.packed_store import Partial
from windlass.model.tiered_store import HostSide


class HostPages:
    """Pages in host memory, `host`, and behind those on `disk`; one of the two may be missing. For one thread."""

    def __init__(self, host: PackedPages | None, disk: PackedDisk | None) -> None:
        self.host, self.disk = host, disk
        self._on_host = host.num_pages if host is not None else 0

    def put(self, pages: Sequence[int], records: torch.Tensor) -> None:
        """Stores packed pages (n, page.nbytes), numbered from the first that is here."""
        near = [at for at, page in enumerate(pages) if page < self._on_host]
        far = [at for at, page in enumerate(pages) if page >= self._on_host]
        if near:
            assert self.host is not None
            self.host.put([pages[at] for at in near], records[near])
        if far:
            assert self.disk is not None
            self.disk.put([pages[at] - self._on_host for at in far], records[far])

    def records(self, pages: Sequence[int]) -> torch.Tensor:
        """Copies of packed pages (n, page.nbytes)."""
        near = [at for at, page in enumerate(pages) if page < self._on_host]
        far = [at for at, page in enumerate(pages) if page >= self._on_host]
        parts = []
        if near:
            assert self.host is not None
            parts.append(self.host.records([pages[at] for at in near]))
        if far:
            assert self.disk is not None
            parts.append(self.disk.records([pages[at] - self._on_host for at in far]))
        return _in_order(parts, [*near, *far])

    def results(self, query: torch.Tensor, batch: Batch, rule: AttentionRule) -> list[Partial]:
        """query (S, H, Dk) over what is seen here, memory by memory."""
        found = []
        if self.host is not None and batch.host is not None:
            plan = batch.host.decode_plan(rule, decode_sizes(query.shape[1], self.host), full_reads)
            if plan.reads:
                found.append(partial_decode(query, self.host, plan, rule))
        if self.disk is not None and batch.disk is not None:
            on_disk = self.disk.partial(query, batch.disk, rule, batch.turn)
            found += [on_disk] if on_disk is not None else []
        return found


class PackedTiers:
    """`here` are the first pages, where the model computes; `there` the host's. `side` is how a device reaches it."""

    def __init__(self, here: PackedPages, there: HostPages, side: HostSide | None, layer: int = 0) -> None:
        self.here, self.there, self.side = here, there, side
        self._name = f"layer {layer}"
        self._stored: HostTask[None] | None = None

    def put(self, pages: Sequence[int], records: torch.Tensor) -> None:
        """See FullPages. What belongs elsewhere is on its way there when this returns."""
        near = [at for at, page in enumerate(pages) if page < self.here.num_pages]
        far = [at for at, page in enumerate(pages) if page >= self.here.num_pages]
        if near:
            self.here.put([pages[at] for at in near], records[near])
        if far:
            self._put_there([pages[at] - self.here.num_pages for at in far], records[far])

    def records(self, pages: Sequence[int]) -> torch.Tensor:
        """See FullPages."""
        near = [at for at, page in enumerate(pages) if page < self.here.num_pages]
        far = [at for at, page in enumerate(pages) if page >= self.here.num_pages]
        parts = [self.here.records([pages[at] for at in near])] if near else []
        if far:
            parts.append(self._fetch([pages[at] - self.here.num_pages for at in far]))
        return _in_order(parts, [*near, *far])

    def begin(self, query: torch.Tensor, batch: Batch, rule: AttentionRule) -> Callable[[], list[Partial]]:
        """See FullPages. A device's host has begun when this returns."""
        plan = batch.here.decode_plan(rule, decode_sizes(query.shape[1], self.here), full_reads)
        far = self._begin_there(query, batch, rule)
        return lambda: [*([partial_decode(query, self.here, plan, rule)] if plan.reads else []), *far()]

    def _put_there(self, pages: Sequence[int], records: torch.Tensor) -> None:
        if self.side is None:
            self.there.put(pages, records)
            return
        sent = self.side.download(records, f"packed pages {self._name}")
        self._stored = self.side.lane.submit(
            lambda: self.there.put(pages, sent.result()), f"store {self._name}"
        )  # fmt: skip

    def _fetch(self, pages: Sequence[int]) -> torch.Tensor:
        if self.side is None:
            return self.there.records(pages)
        read = self.side.lane.submit(partial(self.there.records, pages), f"fetch {self._name}")
        with self.side.idle():
            records = read.result()
        return self.side.upload(records, f"packed pages {self._name}")

    def _begin_there(self, query: torch.Tensor, batch: Batch, rule: AttentionRule) -> Callable[[], list[Partial]]:
        if self.side is None:
            return lambda: self.there.results(query, batch, rule)
        seen = [there for there in (batch.host, batch.disk) if there is not None]
        if not any(full_reads(there.decode_spans, rule, there.page_tokens, there.held) for there in seen):
            return list
        side, stored = self.side, self._stored
        sent = side.download(query, f"queries {self._name}")

        def work() -> torch.Tensor:
            if stored is not None:
                stored.result()  # it came before on this lane: this only raises what it may have raised
            whole = reduce(combine, self.there.results(sent.result(), batch, rule))
            packed = side.accelerator.host_empty((*whole[0].shape[:2], whole[0].shape[2] + 1), torch.float32)
            packed[..., :-1], packed[..., -1] = whole
            return packed

        task = side.lane.submit(work, f"attend {self._name}")

        def finish() -> list[Partial]:
            with side.idle():
                packed = task.result()
            packed = side.upload(packed, f"attention {self._name}")
            return [(packed[..., :-1], packed[..., -1])]

        return finish


def _in_order(parts: Sequence[torch.Tensor], places: Sequence[int]) -> torch.Tensor:
    """Rows that belong at `places`, part after part -> the same in order."""
    if len(parts) == 1:
        return parts[0]
    joined = torch.cat(list(parts))
    return torch.empty_like(joined).index_copy_(0, torch.tensor(places, device=joined.device), joined)
