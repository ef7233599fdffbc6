"""A model loaded by a plan and ready to run passes: memory, disk, cache and runner, put together and taken apart."""

import errno
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch

from windlass.engine.embedding_rows import EmbeddingRows
from windlass.engine.opened_model import OpenedModel
from windlass.engine.runner import Runner
from windlass.engine.weights import Weights
from windlass.errors import BudgetError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.plan import Plan
from windlass.kernels.page_store import PageStore
from windlass.memory.arena import Arena
from windlass.memory.disk import DiskReader
from windlass.memory.transfer import DeviceArena
from windlass.model.assembly import Assembly
from windlass.model.attention import connect_attention
from windlass.model.groups import all_slots
from windlass.model.kvcache import KVCache, PageTable, cache_bytes
from windlass.units import format_size


class Engine:
    """Loads on construction. `on_load(done, total, seconds)` hears of the bytes of resident weights as they come.

    Whatever ends the loading, Ctrl-C too, no thread and no memory is left behind. Raises BudgetError where the system
    refuses memory that the plan counts on, StorageError for files that cannot be read.
    """

    def __init__(
        self, opened: OpenedModel, plan: Plan, disk: DiskProfile, on_load: Callable[[int, int, float], None]
    ) -> None:
        self.opened, self.plan, self.disk = opened, plan, disk
        self.load_seconds = 0.0
        with ExitStack() as undo:
            try:
                self._build(undo, on_load)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                raise BudgetError(_refused(plan)) from error
            except MemoryError as error:
                raise BudgetError(_refused(plan)) from error
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Stops reading and frees everything; the model can be loaded again by another plan. May be called twice."""
        self._undo.close()

    def _build(self, undo: ExitStack, on_load: Callable[[int, int, float], None]) -> None:
        """Puts the parts together; `undo` learns how to take them apart, the last one first."""
        opened, plan, device = self.opened, self.plan, self.opened.device
        self.reader = DiskReader(self.disk)
        undo.callback(self.reader.close)
        shapes = dict(opened.facts.cache_shapes)
        size = cache_bytes(opened.facts.cache_shapes, plan.num_pages, plan.page_tokens, opened.dtype)
        self._cache_arena = Arena(max(size, 1)) if device.type == "cpu" else DeviceArena(max(size, 1), device)
        undo.callback(self._cache_arena.close)
        self.cache = KVCache(self._stores(), shapes, PageTable(plan.num_pages, plan.page_tokens))
        undo.callback(self.cache.stores.clear)
        assembly = Assembly(opened.lifted.model, opened.parameters, _dtypes(opened))
        self.weights = Weights(plan, opened.groups, opened.slots, assembly, self.reader, device)
        undo.callback(self.weights.close)
        self._load(on_load)
        self.runner = Runner(plan, self.cache, device)
        self.runner.connect(opened.lifted, self.weights, self._embedding(), opened.narrows_late)
        opened.seat.conductor = self.runner
        for part in opened.lifted.layers:
            connect_attention(part.module, self.cache)

    def _load(self, on_load: Callable[[int, int, float], None]) -> None:
        start, done, total = time.perf_counter(), 0, self.plan.memory.resident

        def count(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            on_load(min(done, total), total, time.perf_counter() - start)

        self.weights.load(count)
        self.load_seconds = time.perf_counter() - start

    def _stores(self) -> dict[int, PageStore]:
        plan, stores, offset = self.plan, {}, 0
        for layer, s in self.opened.facts.cache_shapes:
            sizes = (plan.num_pages, plan.page_tokens, s.key_heads, s.key_dim, s.value_heads, s.value_dim)
            nbytes = PageStore.nbytes(*sizes, self.opened.dtype)
            storage = self._cache_arena.tensor(offset, torch.uint8, (nbytes,))
            stores[layer] = PageStore(*sizes, self.opened.dtype, self.opened.device, storage)
            offset += nbytes
        return stores

    def _embedding(self) -> EmbeddingRows:
        (group,) = [group for group in self.opened.groups if group.kind == "embedding"]
        (source,) = group.sources
        slot = self.opened.slots[source.key][0]
        resident = source.key in self.plan.resident
        return EmbeddingRows(slot, None if resident else source, None if resident else self.reader)


def _dtypes(opened: OpenedModel) -> dict[str, torch.dtype]:
    return {name: slot.empty.dtype for name, slot in all_slots(opened.lifted).items()}


def _refused(plan: Plan) -> str:
    return (
        f"the system refused memory while {plan.model} was loaded, though its budget is "
        f"{format_size(plan.memory.budget)}: something else took it, or a limit is set (ulimit -v); free it, or use a "
        "smaller --host-memory"
    )
