"""One layer's pages of keys and values on disk: whole pages are written behind and read ahead.

A page that is being filled lies in memory, in one of a few open places. Once it is full it is written, and its place
is free again when that has ended. Decode attention reads the pages of a pass in long runs, a few of them ahead, and
adds up what each run gives.

S sequences that decode; H query heads; Hk, Hv heads and Dk, Dv sizes of keys and values; P tokens a page.
"""

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.facts.cache_shape import CacheShape
from windlass.kernels.attention import decode_sizes
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.decode_attention import partial_decode
from windlass.kernels.decode_plan import plan_reads, visible_reads
from windlass.kernels.page_read import PageRead
from windlass.kernels.page_store import PageStore
from windlass.kernels.partial_results import combine
from windlass.memory.page_file import PageFile
from windlass.memory.page_reads import PageReads, Run

CPU = torch.device("cpu")

Partial = tuple[torch.Tensor, torch.Tensor]


class DiskPages:
    """`count` pages at byte `base` of the file; `open_places` holds those being filled. For one thread."""

    def __init__(
        self,
        layer: int,
        shape: CacheShape,
        open_places: PageStore,
        file: PageFile,
        base: int,
        count: int,
        reads: PageReads,
    ) -> None:
        self.layer, self.open, self.reads, self.count = layer, open_places, reads, count
        self._shape, self._file = shape, file
        self._key_bytes, self._value_bytes = page_bytes(open_places)
        self._keys_at, self._values_at = base, base + count * self._key_bytes
        self._run_pages = max(1, reads.nbytes // (self._key_bytes + self._value_bytes))
        self._place: dict[int, int] = {}
        self._free = list(range(open_places.num_pages))
        self._writing: OrderedDict[int, tuple[Future[None], Future[None]]] = OrderedDict()

    def write(self, batch: AttentionBatch, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores key (Hk, r, Dk) and value (Hv, r, Dv) of the rows of `batch`, and writes out what they fill."""
        pages, slots = batch.row_page.tolist(), batch.row_slot.tolist()
        opened = [] if batch.opened_pages is None else batch.opened_pages.tolist()
        page_tokens, start = self.open.page_tokens, 0
        while start < len(pages):
            stop = start
            while stop < len(pages) and pages[stop] == pages[start]:
                stop += 1
            page, place = pages[start], self._open_place(pages[start], begun=slots[start] > 0)
            if page in opened:
                # What lies behind a sequence's end is multiplied by a weight of zero, so it must be finite.
                self.open.values[place] = 0
            self.open.keys[place, :, slots[start] : slots[stop - 1] + 1] = key[:, start:stop]
            self.open.values[place, :, slots[start] : slots[stop - 1] + 1] = value[:, start:stop]
            if slots[stop - 1] == page_tokens - 1:
                self._write_out(page, place)
            start = stop

    def partial(self, query: torch.Tensor, batch: AttentionBatch, rule: AttentionRule, turn: int) -> Partial | None:
        """query (S, H, Dk) -> out (S, H, Dv) and log-sum-exp (S, H) over these pages, or None where none is seen."""
        reads = visible_reads(batch.decode_spans, rule, self.open.page_tokens, batch.held)
        in_memory = [replace(read, page=self._place[read.page]) for read in reads if read.page in self._place]
        on_disk = [read for read in reads if read.page not in self._place]
        results = [self._attend(query, self.open, sorted(in_memory, key=by_page), rule)] if in_memory else []
        by_run = list(runs_of(on_disk, self._run_pages))
        wanted = [self.run(turn, run[0].page, run[-1].page + 1 - run[0].page) for run in by_run]
        found = {run.first: own for run, own in zip(wanted, by_run, strict=True)}
        for arrival in self.reads.take((self.layer, turn), wanted):
            own = [replace(read, page=read.page - arrival.run.first) for read in found[arrival.run.first]]
            store = self._view(arrival.offset, arrival.run.count)
            results.append(self._attend(query, store, own, rule))
            self.reads.give_back(arrival)
        if not results:
            return None
        whole = results[0]
        for result in results[1:]:
            whole = combine(whole, result)
        return whole

    def begin_pass(self, live: Container[int]) -> None:
        """A pass begins: what was full is on disk now, and pages that are not in `live` hold nothing any more.

        Only here do pages move from memory to disk (and where places run out), so that the order in which results are
        added up does not depend on how fast the disk is.
        """
        while self._writing:
            self._end(next(iter(self._writing)))
        for page in [page for page in self._place if page not in live]:
            self._free.append(self._place.pop(page))

    def foreseen(self, batch: AttentionBatch, turn: int) -> list[Run]:
        """The runs that `partial` will read for a batch, if the layer sees all that came before."""
        rule = AttentionRule(1.0)
        reads = visible_reads(batch.decode_spans, rule, self.open.page_tokens, batch.held)
        on_disk = [read for read in reads if read.page not in self._place]
        return [
            self.run(turn, run[0].page, run[-1].page + 1 - run[0].page) for run in runs_of(on_disk, self._run_pages)
        ]

    def run(self, turn: int, first: int, count: int) -> Run:
        """The ranges of the file that hold pages first .. first + count, and where they go in a buffer."""
        keys, values = count * self._key_bytes, count * self._value_bytes
        return Run(
            (self.layer, turn),
            first,
            count,
            (
                (self._keys_at + first * self._key_bytes, keys, 0),
                (self._values_at + first * self._value_bytes, values, keys),
            ),
        )

    def read(self, pages: Sequence[int], stop: int, start: int) -> Partial:
        """Tokens start .. stop of the sequence in `pages` -> copies key (Hk, m, Dk), value (Hv, m, Dv)."""
        size = self.open.page_tokens
        keys, values = [], []
        for number in range(start // size, -(-stop // size)):
            cut = slice(max(0, start - number * size), min(size, stop - number * size))
            key, value = self._page(pages[number])
            keys.append(key[:, cut])
            values.append(value[:, cut])
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def put(self, page: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores a page as it is: key (Hk, P, Dk), value (Hv, P, Dv). It may go on being filled."""
        place = self._open_place(page, begun=False)
        self.open.keys[place], self.open.values[place] = key, value
        self._write_out(page, place)

    def _page(self, page: int) -> Partial:
        if page in self._place:
            place = self._place[page]
            return self.open.keys[place].clone(), self.open.values[place].clone()
        (arrival,) = self.reads.take(None, [self.run(-1, page, 1)])
        store = self._view(arrival.offset, 1)
        copies = store.keys[0].clone(), store.values[0].clone()
        self.reads.give_back(arrival)
        return copies

    def _attend(self, query: torch.Tensor, store: PageStore, reads: list[PageRead], rule: AttentionRule) -> Partial:
        sizes = decode_sizes(query.shape[1], store)
        return partial_decode(query, store, plan_reads(reads, query.shape[0], store.page_tokens, sizes, CPU), rule)

    def _view(self, offset: int, count: int) -> PageStore:
        nbytes = count * (self._key_bytes + self._value_bytes)
        shape, keys = self._shape, self.open.keys
        storage = self.reads.arena.tensor(offset, torch.uint8, (nbytes,))
        sizes = (shape.key_heads, shape.key_dim, shape.value_heads, shape.value_dim)
        return PageStore(count, self.open.page_tokens, *sizes, keys.dtype, CPU, storage)

    def _open_place(self, page: int, begun: bool) -> int:
        """Where the page is filled; one that is `begun` and was written meanwhile is read back."""
        if page in self._writing:
            self._end(page)
        if page in self._place:
            return self._place[page]
        if not self._free:
            self._end(next(iter(self._writing)))
        place = self._free.pop()
        if begun:
            self.open.keys[place], self.open.values[place] = self._page(page)
        self._place[page] = place
        return place

    def _write_out(self, page: int, place: int) -> None:
        keys, values = _bytes_of(self.open.keys[place]), _bytes_of(self.open.values[place])
        self._writing[page] = (
            self._file.write(self._keys_at + page * self._key_bytes, keys),
            self._file.write(self._values_at + page * self._value_bytes, values),
        )

    def _end(self, page: int) -> None:
        for future in self._writing.pop(page):
            future.result()
        self._free.append(self._place.pop(page))


def page_bytes(store: PageStore) -> tuple[int, int]:
    """Bytes of the keys and of the values of a page."""
    return store.keys[0].nbytes, store.values[0].nbytes


def by_page(read: PageRead) -> tuple[int, int]:
    """For sorting."""
    return read.page, read.owner


def runs_of(reads: Sequence[PageRead], longest: int) -> Iterator[list[PageRead]]:
    """Reads of neighbouring pages together, at most `longest` pages in a run."""
    run: list[PageRead] = []
    for read in reads:
        if run and (read.page > run[-1].page + 1 or read.page - run[0].page >= longest):
            yield run
            run = []
        run.append(read)
    if run:
        yield run


def _bytes_of(page: torch.Tensor) -> memoryview:
    return page.reshape(-1).view(torch.uint8).numpy().data.cast("B")
