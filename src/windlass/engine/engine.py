"""A model loaded by a plan and ready to run passes: memory, disk, cache and runner, put together and taken apart."""

import errno
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from windlass.engine.crew import Crew
from windlass.engine.embedding_rows import EmbeddingRows
from windlass.engine.host_row import HostRow
from windlass.engine.layer_stores import LayerStores
from windlass.engine.opened_model import OpenedModel
from windlass.engine.places import Places
from windlass.engine.prefix_tree import PrefixTree
from windlass.engine.runner import Runner
from windlass.engine.target import accelerator_for
from windlass.engine.trace import ComputeSpans, Trace
from windlass.engine.weights import Weights
from windlass.errors import BudgetError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.plan import Plan
from windlass.memory.disk import DiskReader
from windlass.memory.host_clock import timed_on_host
from windlass.memory.host_lane import HostLane
from windlass.model.assembly import Assembly
from windlass.model.attention import connect_attention
from windlass.model.kvcache import KVCache
from windlass.model.layer_store import Batch
from windlass.model.page_table import PageTable
from windlass.model.slots import all_slots
from windlass.model.tiered_store import HostSide
from windlass.units import format_size


class Engine:
    """Loads on construction. `on_load(done, total, seconds)` hears of the bytes of resident weights as they come.

    `trace` is told of what each lane does. With `share_prefixes` what prompts begin with is kept for later ones.

    Whatever ends the loading, Ctrl-C too, no thread and no memory is left behind. Raises BudgetError where the system
    refuses memory that the plan counts on, StorageError for files that cannot be read.
    """

    def __init__(
        self,
        opened: OpenedModel,
        plan: Plan,
        disk: DiskProfile,
        on_load: Callable[[int, int, float], None],
        offload_dir: Path | None = None,
        trace: Trace | None = None,
        share_prefixes: bool = True,
    ) -> None:
        self.opened, self.plan, self.disk, self.offload_dir = opened, plan, disk, offload_dir
        self.trace, self._share_prefixes = trace, share_prefixes
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

    @property
    def scored_tokens(self) -> int:
        """Tokens of a pass whose rows can all be scored in what the plan has for rows, if it was not made for that."""
        row = self.opened.facts.row_bytes * self.opened.rows_scored
        return max(1, min(self.plan.pass_tokens, round(self.plan.memory.row / row)))

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
        assembly = Assembly(opened.lifted.model, opened.parameters, _dtypes(opened))
        self.weights = Weights(plan, opened.groups, opened.slots, assembly, self.reader, self.accelerator)
        undo.callback(self.weights.close)
        stores = LayerStores(opened.facts, plan, opened.dtype, self.accelerator, self.offload_dir)
        self.disk_cache = stores.disk
        undo.callback(stores.close)
        # What they still do with the stores ends before these go; their threads begin with the first work.
        undo.callback(self.crew.close)
        undo.callback(self.host_lane.close)
        side = None
        if self.accelerator is not None:
            side = HostSide(self.accelerator, self.host_lane, self.crew.idle)
        places = plan.block_size if opened.facts.cache_format.packs else 0
        table = PageTable(plan.num_pages, plan.page_tokens, places)
        shapes = dict(opened.facts.cache_shapes)
        self.cache = KVCache(stores.by_layer(side), shapes, table, opened.facts.cache_format)
        undo.callback(self.cache.stores.clear)
        self.prefixes = PrefixTree(table) if self._share_prefixes and opened.shares_prefixes else None
        self.places = Places(self.cache, opened.read_again_beyond, self.prefixes)
        self.runner = Runner(plan, self.cache, opened.device, self.crew)
        if self.trace is not None:
            self._record(self.trace)
        self._load(on_load)
        host_row = self._host_row()
        if host_row is not None:
            undo.callback(host_row.close)
        embedding = self._embedding()
        self.runner.connect(opened.lifted, self.weights, embedding, opened.narrows_late, host_row)
        if self.runner.spans is not None:
            self.crew.paused = embedding.paused = self.runner.spans.paused
            if self.weights.shelf is not None:
                self.weights.shelf.paused = self.runner.spans.paused
        self.runner.before_pass = self._begin_pass
        opened.seat.conductor = self.runner
        for part in opened.lifted.layers:
            connect_attention(part.module, self.cache)

    def _record(self, trace: Trace) -> None:
        """Has every lane tell of its work, before any has begun."""
        self.reader.listen(trace.add)
        self.host_lane.listen(trace.add)
        if self.disk_cache is not None:
            self.disk_cache.file.listen(trace.add)
        if self.accelerator is None:
            self.runner.spans = ComputeSpans(partial(timed_on_host, trace.add))
        else:
            self.accelerator.listen(trace.add)
            self.runner.spans = ComputeSpans(self.accelerator.timed)

    def _begin_pass(self, batches: Sequence[Batch]) -> None:
        """Begins to read keys and values that lie on disk, in the order of work of whoever attends to them."""
        if self.disk_cache is None:
            return
        live = {page for pages in self.cache.table.pages.values() for page in pages}
        begin = partial(self.disk_cache.begin_pass, batches, live)
        if self.accelerator is None:
            begin()
        else:
            self.host_lane.submit(begin, "begin pass").wait()

    def _load(self, on_load: Callable[[int, int, float], None]) -> None:
        start, done = time.perf_counter(), 0
        total = self.plan.memory.resident + (self.plan.host.resident if self.plan.host else 0)

        def count(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            on_load(min(done, total), total, time.perf_counter() - start)

        self.weights.load(count)
        if done < total:  # what stays is billed in whole blocks
            count(total - done)
        self.load_seconds = time.perf_counter() - start

    def _host_row(self) -> HostRow | None:
        """Where the plan has the row rest on the host, the room for it."""
        opened, plan = self.opened, self.plan
        if not plan.row_on_host:
            return None
        assert self.accelerator is not None and opened.plain_row, "this model's row cannot rest on the host"
        return HostRow(plan.pass_tokens, opened.facts.hidden_size, opened.dtype, self.accelerator)

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
