"""The cache's pages on disk for a whole run: one file, open places for each layer, and the reads of a pass foreseen."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from windlass.facts.cache_shape import CacheShape
from windlass.facts.plan import Plan
from windlass.kernels.page_store import PageStore
from windlass.memory.arena import Arena
from windlass.memory.page_file import PageFile, aligned
from windlass.memory.page_reads import PageReads
from windlass.model.disk_pages import DiskPages
from windlass.model.layer_store import Batch
from windlass.planner.disk_cache import READ_BUFFERS, open_places, read_buffer_bytes


class DiskCache:
    """Owns file and memory of a plan's `disk_pages`. Raises StorageError where `folder` has not got the room."""

    def __init__(self, shapes: Sequence[tuple[int, CacheShape]], plan: Plan, dtype: torch.dtype, folder: Path) -> None:
        sizes = {layer: _sizes(shape, plan.page_tokens) for layer, shape in shapes}
        each = {layer: PageStore.nbytes(1, *size, dtype) for layer, size in sizes.items()}
        pieces = [
            plan.page_tokens * elements * dtype.itemsize
            for _, s in shapes
            for elements in (s.key_heads * s.key_dim, s.value_heads * s.value_dim)
        ]
        self.file = PageFile(folder, plan.disk_pages * sum(each.values()), aligned(*pieces))
        self._reads = PageReads(self.file, read_buffer_bytes(shapes, plan.page_tokens, dtype.itemsize), READ_BUFFERS)
        places = open_places(plan.block_size)
        self._arena = Arena(places * sum(each.values()))
        self.layers: dict[int, DiskPages] = {}
        base = at = 0
        for layer, shape in shapes:
            storage = self._arena.tensor(at, torch.uint8, (places * each[layer],))
            store = PageStore(places, *sizes[layer], dtype, "cpu", storage)
            self.layers[layer] = DiskPages(layer, shape, store, self.file, base, plan.disk_pages, self._reads)
            base += plan.disk_pages * each[layer]
            at += places * each[layer]
        self._first = plan.num_pages - plan.disk_pages

    def begin_pass(self, batches: Iterable[Batch], live: Iterable[int]) -> None:
        """Begins to read what the micro-batches of a pass will want. `live` are the pages that belong to a sequence."""
        held = {page - self._first for page in live if page >= self._first}
        seen = [batch for batch in batches if batch.disk is not None and batch.disk.decodes_here]
        for pages in self.layers.values():
            pages.begin_pass(held)
        self._reads.begin(
            run
            for pages in self.layers.values()
            for batch in seen
            if batch.disk is not None
            for run in pages.foreseen(batch.disk, batch.turn)
        )

    def close(self) -> None:
        """Frees the memory; the file is gone."""
        self._reads.close()
        self.file.close()
        self.layers.clear()
        self._arena.close()


def _sizes(shape: CacheShape, page_tokens: int) -> tuple[int, int, int, int, int]:
    return page_tokens, shape.key_heads, shape.key_dim, shape.value_heads, shape.value_dim
