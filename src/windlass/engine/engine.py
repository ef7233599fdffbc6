"""A model loaded by a plan and ready to run passes: memory, disk, cache and runner, put together and taken apart."""

import errno
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch

from windlass.engine.crew import Crew
from windlass.engine.embedding_rows import EmbeddingRows
from windlass.engine.layer_stores import LayerStores
from windlass.engine.opened_model import OpenedModel
from windlass.engine.runner import Runner
from windlass.engine.target import accelerator_for
from windlass.engine.weights import Weights
from windlass.errors import BudgetError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.plan import Plan
from windlass.memory.disk import DiskReader
from windlass.memory.host_lane import HostLane
from windlass.model.assembly import Assembly
from windlass.model.attention import connect_attention
from windlass.model.groups import all_slots
from windlass.model.kvcache import KVCache
from windlass.model.page_table import PageTable
from windlass.model.tiered_store import HostSide
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
        opened, plan = self.opened, self.plan
        self.reader = DiskReader(self.disk, opened.made)
        undo.callback(self.reader.close)
        self.accelerator = accelerator_for(opened.target, plan)
        if self.accelerator is not None:
            undo.callback(self.accelerator.close)
        self.crew, self.host_lane = Crew(), HostLane(opened.target.delay, opened.target.seed)
        undo.callback(self.crew.close)
        undo.callback(self.host_lane.close)
        assembly = Assembly(opened.lifted.model, opened.parameters, _dtypes(opened))
        self.weights = Weights(plan, opened.groups, opened.slots, assembly, self.reader, self.accelerator)
        undo.callback(self.weights.close)
        stores = LayerStores(opened.facts.cache_shapes, plan, opened.dtype, self.accelerator)
        undo.callback(stores.close)
        side = None
        if self.accelerator is not None:
            side = HostSide(self.accelerator, self.host_lane, self.crew.idle)
        self.cache = KVCache(
            stores.by_layer(side), dict(opened.facts.cache_shapes), PageTable(plan.num_pages, plan.page_tokens)
        )
        undo.callback(self.cache.stores.clear)
        self._load(on_load)
        self.runner = Runner(plan, self.cache, opened.device, self.crew)
        self.runner.connect(opened.lifted, self.weights, self._embedding(), opened.narrows_late)
        opened.seat.conductor = self.runner
        for part in opened.lifted.layers:
            connect_attention(part.module, self.cache)

    def _load(self, on_load: Callable[[int, int, float], None]) -> None:
        start, done = time.perf_counter(), 0
        total = self.plan.memory.resident + (self.plan.host.resident if self.plan.host else 0)

        def count(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            on_load(min(done, total), total, time.perf_counter() - start)

        self.weights.load(count)
        self.load_seconds = time.perf_counter() - start

    def _embedding(self) -> EmbeddingRows:
        (group,) = [group for group in self.opened.groups if group.kind == "embedding"]
        (source,) = group.sources
        slot = self.opened.slots[source.key][0]
        resident = source.key in self.plan.resident
        table = self.weights.host.alone.get(source.key)
        return EmbeddingRows(slot, None if resident else source, self.reader, self.weights.to_device, table)


def _dtypes(opened: OpenedModel) -> dict[str, torch.dtype]:
    return {name: slot.empty.dtype for name, slot in all_slots(opened.lifted).items()}


def _refused(plan: Plan) -> str:
    return (
        f"the system refused memory while {plan.model} was loaded, though its budget is "
        f"{format_size(plan.memory.budget)}: something else took it, or a limit is set (ulimit -v); free it, or use a "
        "smaller --host-memory"
    )
