"""What one micro-batch of a layer takes on each lane, in seconds.

r rows of a micro-batch; c tokens that a decoding row attends to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.job_passes import PassShape
from windlass.planner.layer_work import ExpertWork, SliceWork
from windlass.planner.pace import Computing, Pace


@dataclass(frozen=True, slots=True)
class Experts:
    """Experts on their way: `read` seconds on disk and `computed` seconds in all, of the first one `first_*`."""

    read: float = 0.0
    computed: float = 0.0
    first_read: float = 0.0
    first_computed: float = 0.0
    uploaded: float = 0.0

    @property
    def seconds(self) -> float:
        """From the router's choice to the last expert's result: reading and computing overlap, but for one expert."""
        reading = max(self.read + self.first_computed, self.computed + self.first_read) if self.read else self.computed
        return reading + self.uploaded


NO_EXPERTS = Experts()


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Seconds by what is done, in the order it is done.

    gather   host: what came before is collected from its pages
    bring    upload: that, and a row that rests on the host
    before   compute: up to the queries, and what needs no attention of the host's
    near     compute: attention to what lies here, while the host works
    queries  download: queries, and keys and values that belong on the host
    pages    disk: pages of keys and values
    host     host: keys and values stored, and attention to them
    result   upload: what the host found
    after    compute: the rest of the layer
    send     download: keys and values of a prompt, and a row that rests on the host
    store    host: those keys and values put into pages
    write    disk: pages that are full
    """

    gather: float = 0.0
    bring: float = 0.0
    before: float = 0.0
    near: float = 0.0
    queries: float = 0.0
    pages: float = 0.0
    host: float = 0.0
    result: float = 0.0
    after: float = 0.0
    send: float = 0.0
    store: float = 0.0
    write: float = 0.0
    experts: Experts = NO_EXPERTS

    @property
    def computing(self) -> float:
        """Seconds of work where the model computes."""
        return self.before + self.near + self.after + self.experts.computed

    @property
    def waits_for_host(self) -> bool:
        """Whether another micro-batch has its turn in the middle of this one."""
        return self.host > 0.0 or self.result > 0.0


NOTHING = MicroBatch()

Alike = tuple[MicroBatch, int]
"""So many micro-batches one after the other that cost the same."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Prices micro-batches of one plan, workload and machine."""

    plan: Plan
    workload: Workload
    pace: Pace
    row_bytes: int
    itemsize: int
    _seen: dict[int | None, float] = field(default_factory=dict, compare=False)

    def layer(self, work: SliceWork, shape: PassShape, rows: Sequence[tuple[int, int]]) -> tuple[Alike, ...]:
        """A layer's micro-batches over the ranges `rows`: rows that decode come first, those of prompts are alike."""
        split = next((place for place, (_, stop) in enumerate(rows) if stop > shape.decoding), len(rows))
        mixed = split < len(rows) and rows[split][0] < shape.decoding
        last = split + mixed
        each = [self._both(work, shape, start, stop, 0.0, len(rows)) for start, stop in rows[:split]]
        if mixed:
            start, stop = rows[split]
            each.append(self._both(work, shape, start, shape.decoding, stop - shape.decoding, len(rows)))
        found = [(cost, sum(1 for _ in alike)) for cost, alike in groupby(each)]
        if last < len(rows):
            mean = (shape.tokens - rows[last][0]) / (len(rows) - last)
            found.append((self._both(work, shape, 0, 0, mean, len(rows)), len(rows) - last))
        return tuple(found)

    def head(self, work: SliceWork, rows: int, at_once: int) -> MicroBatch:
        """The head, or a part of it, over `rows` rows of which it sees `at_once` at a time."""
        steps = -(-rows // max(1, at_once)) if rows else 0
        computing = self.pace.computing
        products = computing.all_products(work.parameters, work.packed, rows, min(rows, at_once))
        before = products + steps * computing.step + self._contention(work, work.weight_bytes, products, computing)
        return MicroBatch(before=before if rows else 0.0)

    def _both(self, work: SliceWork, shape: PassShape, start: int, stop: int, reading: float, count: int) -> MicroBatch:
        """A micro-batch of sequences start .. stop that decode, and `reading` rows of prompts; one of `count`."""
        rows = stop - start + reading
        dense, experts = self._dense(work, rows, count), self._experts(work, rows)
        resting = rows * self.row_bytes if self.plan.row_on_host else 0.0
        read = self._reading(work, shape, reading) if reading else NOTHING
        drawn = self._decoding(work, shape, start, stop, count) if stop > start else NOTHING
        first = dense
        if drawn.host and work.parameters:
            first = dense * min(1.0, work.projections / work.parameters)
        return MicroBatch(
            gather=read.gather,
            bring=read.bring + self._crossing(resting, self.pace.upload),
            before=first + read.before + drawn.before,
            near=drawn.near,
            queries=drawn.queries,
            pages=drawn.pages,
            host=drawn.host,
            result=drawn.result,
            after=dense - first,
            send=read.send + self._crossing(resting, self.pace.download),
            store=read.store,
            write=read.write + drawn.write,
            experts=experts,
        )

    def _reading(self, work: SliceWork, shape: PassShape, rows: float) -> MicroBatch:
        """What attention of `rows` rows of prompts, and keys and values on their way, add."""
        pace, here = self.pace, self.pace.computing
        attention = 0.0
        if work.attention is not None:
            flops = work.attention.flops_per_pair * self._attended(work.attention.window) * rows
            attention = here.prefill_attention(flops, shape.own + shape.shared)
        _, on_host, on_disk = shares(self.plan, shape, 0, shape.sequences)
        far = on_host + on_disk if self.plan.far_pages else 0.0
        # What was stored of a prompt before this piece of it is read again.
        again = rows * _read_again(shape, rows) * work.attended_bytes
        stored = rows * work.cache_bytes
        own = attention + here.copying(2 * again * (1 - far))
        own += 0.0 if self.plan.far_pages else here.copying(stored * on_disk) + again * on_disk / pace.disk
        return MicroBatch(
            gather=pace.host.copying(2 * again * far) + (again * on_disk / pace.disk if far else 0.0),
            bring=self._crossing(again * far, pace.upload),
            before=own,
            send=self._crossing(stored * far, pace.download),
            store=pace.host.copying(2 * stored * far),
            write=stored * on_disk / pace.disk_write,
        )

    def _decoding(self, work: SliceWork, shape: PassShape, start: int, stop: int, count: int) -> MicroBatch:
        """What attention of sequences start .. stop, and keys and values on their way, add."""
        pace, here, rows = self.pace, self.pace.computing, stop - start
        near, on_host, on_disk = shares(self.plan, shape, start, stop)
        window = work.attention.window if work.attention is not None else None
        context = shape.context if window is None else min(shape.context, window)
        nbytes = rows * context * work.attended_bytes
        pages = nbytes * on_disk / pace.disk
        write = rows * work.cache_bytes * on_disk / pace.disk_write
        if not self.plan.far_pages:
            return MicroBatch(before=self._attention(work, nbytes, rows * context, here), pages=pages, write=write)
        far = on_host + on_disk
        mine = self._attention(work, nbytes * near, rows * context * near, here)
        if not far or work.attention is None:
            return MicroBatch(near=mine)
        heads = work.attention.query_heads
        asked = rows * (heads * work.attention.key_dim * self.itemsize + far * work.cache_bytes)
        found = rows * heads * (work.attention.value_dim + 1) * 4
        theirs = self._attention(work, nbytes * far, rows * context * far, pace.host)
        theirs += self._contention(work, nbytes * far, theirs, pace.host) / count
        return MicroBatch(
            near=mine,
            queries=self._crossing(asked, pace.download),
            pages=pages,
            host=theirs + pace.host.copying(2 * rows * far * work.cache_bytes),
            result=self._crossing(found, pace.upload),
            write=write,
        )

    def _attended(self, window: int | None) -> float:
        if window not in self._seen:
            self._seen[window] = self.workload.mean_attended(window)
        return self._seen[window]

    def _dense(self, work: SliceWork, rows: float, count: int) -> float:
        """Products, norms and the rest of a layer, experts apart."""
        here = self.pace.computing
        products = here.all_products(work.parameters, work.packed, rows)
        contended = self._contention(work, work.weight_bytes, products, here) / count
        return products + contended + here.rows(rows * self.row_bytes) + here.step

    def _contention(self, work: SliceWork, own: float, seconds: float, where: Computing) -> float:
        """What the host loses to copies that pass through its memory while it works, over the whole slice.

        A direct read writes each byte to memory once and an upload reads it once: memory that serves them serves
        nobody else meanwhile. It matters as far as the work is bound by memory itself, moving `own` bytes in
        `seconds`, and no more bytes are in its way than it moves.
        """
        if where is not self.pace.host or not seconds:
            return 0.0
        passing = work.part.disk_bytes + (work.part.streamed_bytes if self.plan.host is not None else 0)
        bound = min(1.0, where.copying(own) / seconds)
        return bound * where.copying(min(float(passing), own))

    def _attention(self, work: SliceWork, nbytes: float, tokens: float, where: Computing) -> float:
        """Decode attention to `tokens` tokens that take `nbytes`."""
        rebuilt = tokens * work.rebuild_flops
        return where.decode_attention(nbytes, work.sharing) + (rebuilt / where.matmul.best if rebuilt else 0.0)

    def _experts(self, work: SliceWork, rows: float) -> Experts:
        if work.experts is None:
            return NO_EXPERTS
        return experts_of(work.experts, rows, self.pace)

    def _crossing(self, nbytes: float, rate: float) -> float:
        return self.pace.latency + nbytes / rate if nbytes else 0.0


def experts_of(experts: ExpertWork, rows: float, pace: Pace) -> Experts:
    """What the experts that `rows` rows want take."""
    wanted = experts.distinct(rows)
    each = rows * min(experts.wanted, experts.count) / wanted
    products = pace.computing.all_products(experts.parameters, experts.packed, each)
    computed = wanted * (products + pace.computing.step / 4)
    read = wanted * experts.disk_bytes / pace.disk
    return Experts(
        read=read,
        computed=computed,
        first_read=read / wanted,
        first_computed=computed / wanted,
        uploaded=wanted * (pace.latency + experts.host_bytes / pace.upload) if experts.host_bytes else 0.0,
    )


def shares(plan: Plan, shape: PassShape, start: int, stop: int) -> tuple[float, float, float]:
    """Shares of the keys and values of sequences start .. stop: where the model computes, on the host, on disk.

    Sequences take their pages in order as they enter, and the first pages lie where the model computes.
    """
    low, high = start * shape.pages, max(start + 1, stop) * shape.pages
    edges = (0, plan.device_pages, plan.device_pages + plan.host_pages, plan.num_pages)
    spread = [
        max(0, min(high, end) - max(low, begin)) / (high - low) for begin, end in zip(edges, edges[1:], strict=False)
    ]
    return spread[0], spread[1], spread[2]


def _read_again(shape: PassShape, rows: float) -> float:
    """Tokens read again for each token of a prompt: those it shares, and it is cut into pieces of `rows` tokens."""
    return shape.shared / min(shape.own, rows) + max(0.0, (shape.own / rows - 1) / 2)
