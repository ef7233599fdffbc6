"""The cache's pages on disk for a whole run: one file, open places for each layer, and the reads of a pass foreseen."""

from collections.abc import Iterable
from pathlib import Path

import torch

from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_store import PageStore
from windlass.memory.arena import Arena
from windlass.memory.page_file import PageFile, aligned
from windlass.memory.page_reads import PageReads
from windlass.model.disk_pages import DiskPages
from windlass.model.layer_store import Batch
from windlass.model.packed_disk import PackedDisk
from windlass.planner.disk_cache import READ_BUFFERS, open_places, read_buffer_bytes


class DiskCache:
    """Owns file and memory of a plan's `disk_pages`. Raises StorageError where `folder` has not got the room."""

    def __init__(self, model: ModelFacts, plan: Plan, dtype: torch.dtype, folder: Path) -> None:
        size, places = model.cache_page_bytes(plan.page_tokens), open_places(model, plan.block_size)
        self.file = PageFile(folder, plan.disk_pages * size, aligned(*_pieces(model, plan.page_tokens)))
        self._reads = PageReads(self.file, read_buffer_bytes(model, plan.page_tokens), READ_BUFFERS)
        self._arena = Arena(places * size)
        self.whole: dict[int, DiskPages] = {}
        self.packed: dict[int, PackedDisk] = {}
        base = at = 0
        for layer, shape in model.cache_shapes:
            nbytes = model.cache_format.page_bytes(shape, plan.page_tokens, model.itemsize)
            storage = self._arena.tensor(at, torch.uint8, (places, nbytes))
            where = (self.file, base, plan.disk_pages, self._reads)
            if model.cache_format.packs:
                page = model.cache_format.packed_page(shape, plan.page_tokens)
                self.packed[layer] = PackedDisk(layer, PackedPages(storage, page, dtype), *where)
            else:
                sizes = (plan.page_tokens, shape.key_heads, shape.key_dim, shape.value_heads, shape.value_dim)
                store = PageStore(places, *sizes, dtype, "cpu", storage.flatten())
                self.whole[layer] = DiskPages(layer, shape, store, *where)
            base += plan.disk_pages * nbytes
            at += places * nbytes
        self._first = plan.num_pages - plan.disk_pages

    def begin_pass(self, batches: Iterable[Batch], live: Iterable[int]) -> None:
        """Begins to read what the micro-batches of a pass will want. `live` are the pages that belong to a sequence."""
        held = {page - self._first for page in live if page >= self._first}
        seen = [batch for batch in batches if batch.disk is not None and batch.disk.decodes_here]
        for pages in self._layers():
            pages.begin_pass(held)
        self._reads.begin(
            run
            for pages in self._layers()
            for batch in seen
            if batch.disk is not None
            for run in pages.foreseen(batch.disk, batch.turn)
        )

    def _layers(self) -> list[DiskPages | PackedDisk]:
        return [*self.whole.values(), *self.packed.values()]

    def close(self) -> None:
        """Frees the memory; the file is gone."""
        self._reads.close()
        self.file.close()
        self.whole.clear()
        self.packed.clear()
        self._arena.close()


def _pieces(model: ModelFacts, page_tokens: int) -> list[int]:
    """Bytes of all that is read and written by itself: a page where it is packed, else its keys and its values."""
    if model.cache_format.packs:
        return [model.cache_format.packed_page(shape, page_tokens).nbytes for _, shape in model.cache_shapes]
    return [
        page_tokens * elements * model.itemsize
        for _, shape in model.cache_shapes
        for elements in (shape.key_heads * shape.key_dim, shape.value_heads * shape.value_dim)
    ]
