"""One layer's packed pages on disk: written behind as they come, each one range of the file, and read ahead in runs.

S sequences that decode; H query heads; Dk, Dv sizes of keys and values.
"""

from collections import OrderedDict
from collections.abc import Container, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import reduce

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention import decode_sizes
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.decode_attention import partial_decode
from windlass.kernels.decode_plan import full_reads, plan_reads
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_read import PageRead
from windlass.kernels.partial_results import combine
from windlass.memory.page_file import PageFile
from windlass.memory.page_reads import PageReads, Run
from windlass.model.disk_pages import by_page, runs_of

CPU = torch.device("cpu")

Partial = tuple[torch.Tensor, torch.Tensor]


class PackedDisk:
    """`count` pages at byte `base` of the file; those on their way there lie in `behind`. For one thread."""

    def __init__(
        self, layer: int, behind: PackedPages, file: PageFile, base: int, count: int, reads: PageReads
    ) -> None:
        self.layer, self.behind, self.reads, self.count = layer, behind, reads, count
        self._file, self._base, self._nbytes = file, base, behind.page.nbytes
        self._run_pages = max(1, reads.nbytes // self._nbytes)
        self._place: dict[int, int] = {}
        self._free = list(range(behind.num_pages))
        self._writing: OrderedDict[int, Future[None]] = OrderedDict()

    def put(self, pages: Sequence[int], records: torch.Tensor) -> None:
        """Stores packed pages (n, page.nbytes)."""
        for page, record in zip(pages, records, strict=True):
            if page in self._writing:
                self._end(page)
            if not self._free:
                self._end(next(iter(self._writing)))
            place = self._place[page] = self._free.pop()
            target = self.behind.packed[place]
            target.copy_(record)
            at = self._base + page * self._nbytes
            self._writing[page] = self._file.write(at, target.numpy().data.cast("B"))

    def records(self, pages: Sequence[int]) -> torch.Tensor:
        """Copies of packed pages (n, page.nbytes)."""
        found = torch.empty(len(pages), self._nbytes, dtype=torch.uint8)
        for at, page in enumerate(pages):
            if page in self._place:
                found[at] = self.behind.packed[self._place[page]]
                continue
            (arrival,) = self.reads.take(None, [self.run(-1, page, 1)])
            found[at] = self._view(arrival.offset, 1).packed[0]
            self.reads.give_back(arrival)
        return found

    def partial(self, query: torch.Tensor, batch: AttentionBatch, rule: AttentionRule, turn: int) -> Partial | None:
        """query (S, H, Dk) -> out (S, H, Dv) and log-sum-exp (S, H) over these pages, or None where none is seen."""
        reads = full_reads(batch.decode_spans, rule, self.behind.page_tokens, batch.held)
        in_memory = [replace(read, page=self._place[read.page]) for read in reads if read.page in self._place]
        results = [self._attend(query, self.behind, sorted(in_memory, key=by_page), rule)] if in_memory else []
        by_run = self._runs(reads)
        wanted = [self.run(turn, run[0].page, run[-1].page + 1 - run[0].page) for run in by_run]
        found = {run.first: own for run, own in zip(wanted, by_run, strict=True)}
        for arrival in self.reads.take((self.layer, turn), wanted):
            own = [replace(read, page=read.page - arrival.run.first) for read in found[arrival.run.first]]
            results.append(self._attend(query, self._view(arrival.offset, arrival.run.count), own, rule))
            self.reads.give_back(arrival)
        return reduce(combine, results) if results else None

    def begin_pass(self, live: Container[int]) -> None:
        """A pass begins: all is on disk now. Only here, and where places run out, do pages leave memory: the order in
        which results are added up does not depend on how fast the disk is. Every page is whole, `live` or not."""
        while self._writing:
            self._end(next(iter(self._writing)))

    def foreseen(self, batch: AttentionBatch, turn: int) -> list[Run]:
        """The runs that `partial` will read for a batch, if the layer sees all that came before."""
        reads = full_reads(batch.decode_spans, AttentionRule(1.0), self.behind.page_tokens, batch.held)
        return [self.run(turn, run[0].page, run[-1].page + 1 - run[0].page) for run in self._runs(reads)]

    def run(self, turn: int, first: int, count: int) -> Run:
        """The range of the file that holds pages first .. first + count."""
        return Run(
            (self.layer, turn), first, count, ((self._base + first * self._nbytes, count * self._nbytes, 0),)
        )  # fmt: skip

    def _runs(self, reads: Sequence[PageRead]) -> list[list[PageRead]]:
        return list(runs_of([read for read in reads if read.page not in self._place], self._run_pages))

    def _attend(self, query: torch.Tensor, pages: PackedPages, reads: list[PageRead], rule: AttentionRule) -> Partial:
        sizes = decode_sizes(query.shape[1], pages)
        return partial_decode(query, pages, plan_reads(reads, query.shape[0], pages.page_tokens, sizes, CPU), rule)

    def _view(self, offset: int, count: int) -> PackedPages:
        packed = self.reads.arena.tensor(offset, torch.uint8, (count, self._nbytes))
        return PackedPages(packed, self.behind.page, self.behind.dtype)

    def _end(self, page: int) -> None:
        self._writing.pop(page).result()
        self._free.append(self._place.pop(page))
