"""The pipeline of a run as an event simulation: lanes, rings of finite size, and one pass after the other.

Work enters each lane in the order in which the engine issues it, which the credits alone decide, never the clock: so
nothing can overtake, and a machine that does anything faster is never later with anything. A lane does one thing at a
time. The lanes that fill the rings run ahead over the end of a pass, as far as there are free bytes.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from windlass.facts.lane import LANES
from windlass.facts.plan import Plan
from windlass.facts.time_span import TimeSpan
from windlass.planner.micro_batch import NO_EXPERTS, Alike, MicroBatch
from windlass.planner.pace import Pace
from windlass.planner.schedule import Op, Schedule, Step
from windlass.planner.timeline import step_name

# So many micro-batches of a layer are walked one by one; what they take each then holds for the others too.
WALKED = 16
# Micro-batches of a layer on their way at once where the host attends: engine.crew has two threads.
AT_ONCE = 2


@dataclass(slots=True)
class Lane:
    """One order of work. `free` is when it has done all it was given, `busy` for how long it has worked."""

    name: str
    spans: list[TimeSpan] | None = None
    free: float = 0.0
    busy: float = 0.0

    def run(self, what: str, ready: float, seconds: float) -> tuple[float, float]:
        """Work that may begin at `ready` -> when it begins and ends. Nothing takes no place on the lane."""
        if seconds <= 0.0:
            return ready, ready
        return self.hold(what, max(self.free, ready), seconds, 0.0)

    def hold(self, what: str, begin: float, seconds: float, waiting: float) -> tuple[float, float]:
        """Takes the lane from `begin` for `seconds` of work and then for `waiting` ones."""
        if self.spans is not None and seconds > 0.0:
            self.spans.append(TimeSpan(self.name, what, begin, seconds))
        self.busy += seconds
        self.free = begin + seconds + waiting
        return begin, self.free


@dataclass(slots=True)
class CreditRing:
    """Bytes lent in order, as memory.ring lends them; room comes back in order too. Knows when, not only whether."""

    capacity: int
    _head: int = 0
    _tail: int = 0
    _ready: float = 0.0
    _runs: deque["Loan"] = field(default_factory=deque)

    def acquire(self, nbytes: int) -> "Loan | None":
        """A loan, with when its bytes were free; None while somebody has yet to give back."""
        while not self._fits(nbytes):
            if not self._runs or self._runs[0].returned is None:
                assert self._runs, f"a run of {nbytes} bytes cannot fit a ring of {self.capacity}"
                return None
            oldest = self._runs.popleft()
            assert oldest.returned is not None
            self._tail, self._ready = oldest.end, max(self._ready, oldest.returned)
            if not self._runs:
                self._head = self._tail = 0
        self._head += self._skipped(nbytes) + nbytes
        loan = Loan(nbytes, self._head, self._ready)
        self._runs.append(loan)
        return loan

    def _skipped(self, nbytes: int) -> int:
        """Bytes left unused so that a run does not wrap around the end."""
        left = self.capacity - self._head % self.capacity
        return left if left < nbytes else 0

    def _fits(self, nbytes: int) -> bool:
        return self._head + self._skipped(nbytes) + nbytes <= self._tail + self.capacity


@dataclass(slots=True)
class Loan:
    """`nbytes` of a ring that were free at `ready`; `returned` is when they were given back."""

    nbytes: int
    end: int
    ready: float
    returned: float | None = None

    def give_back(self, time: float) -> None:
        """The bytes may be overwritten from `time` on."""
        self.returned = time


@dataclass(frozen=True, slots=True)
class PassWork:
    """A pass as it is walked: its schedule, and what each COMPUTE of it takes, by slice.

    `embedding` holds the seconds of disk, upload and compute before the first layer, `drawing` those of drawing tokens.
    """

    schedule: Schedule
    costs: Sequence[Sequence[Alike]]
    converting: Sequence[float]
    embedding: tuple[float, float, float]
    drawing: float


@dataclass(slots=True)
class _Arrival:
    part: int
    time: float
    loan: Loan


class Pipeline:
    """Lanes and rings of a plan on a machine, from the moment it is loaded. With `record`, every span is kept."""

    def __init__(self, plan: Plan, pace: Pace, record: bool = False) -> None:
        self.plan, self.pace, self.record = plan, pace, record
        self.spans: list[TimeSpan] = []
        self.lanes = {name: Lane(name, self.spans if record else None) for name in LANES}
        self.disk, self.up, self.compute, self.down, self.host = (self.lanes[name] for name in LANES)
        self.loans: list[tuple[str, Loan]] = []
        self._disk_ring = CreditRing(plan.host_bill.ring)
        self._device_ring = CreditRing(plan.memory.ring)
        self._reads: deque[int] = deque()
        self._uploads: deque[int] = deque()
        self._read: deque[_Arrival] = deque()
        self._arrived: deque[_Arrival] = deque()
        self._pages_from = 0.0

    def run_pass(self, work: PassWork) -> float:
        """Walks a pass -> when it is over, in seconds since the run began."""
        self._look_ahead(work.schedule)
        disk, upload, compute = work.embedding
        _, there = self.disk.run("read embedding rows", self.compute.free, disk)
        _, there = self.up.run("upload embedding rows", there, upload)
        self.compute.run("embedding", there, compute)
        for index, steps in enumerate(work.schedule.by_part):
            self._slice(index, steps, work)
        self.compute.run("draw tokens", self.compute.free, work.drawing)
        return self.compute.free

    def _slice(self, index: int, steps: Iterable[Step], work: PassWork) -> None:
        arrival: _Arrival | None = None
        name = self.plan.slices[index].name
        for op, same in groupby(steps, key=_op):
            if op is Op.LEND:
                ready = self.compute.free
                if self.plan.slices[index].streamed_bytes:
                    arrival = self._arrived.popleft()
                    assert arrival.part == index, f"slice {index} is lent, slice {arrival.part} has come"
                    ready = max(ready, arrival.time)
                self.compute.free = ready
                self.compute.run(f"convert {name}", ready, work.converting[index])
            elif op is Op.COMPUTE:
                self._compute(name, list(same), work.costs[index])
            elif op is Op.TAKE_BACK and arrival is not None:
                arrival.loan.give_back(self.compute.free)
                self._advance()

    def _look_ahead(self, schedule: Schedule) -> None:
        """The lanes that fill the rings go round for ever: a pass more is theirs to read while this one computes."""
        rounds = 1 if self._reads or self._uploads or self._arrived or self._read else 2
        for _ in range(rounds):
            self._reads.extend(step.part for step in schedule.steps if step.op is Op.READ)
            self._uploads.extend(step.part for step in schedule.steps if step.op is Op.UPLOAD)
        self._advance()

    def _advance(self) -> None:
        """Issues every read and every upload that has its credit."""
        moving = True
        while moving:
            moving = self._issue_read()
            moving = self._issue_upload() or moving

    def _issue_read(self) -> bool:
        if not self._reads:
            return False
        part = self.plan.slices[self._reads[0]]
        loan = self._disk_ring.acquire(part.disk_buffer_bytes)
        if loan is None:
            return False
        self.loans += [("disk", loan)] if self.record else []
        _, end = self.disk.run(f"read {part.name}", loan.ready, part.disk_bytes / self.pace.disk)
        arrival = _Arrival(self._reads.popleft(), end, loan)
        (self._arrived if self.plan.host is None else self._read).append(arrival)
        return True

    def _issue_upload(self) -> bool:
        if not self._uploads:
            return False
        index = self._uploads[0]
        part = self.plan.slices[index]
        if part.disk_bytes and not self._read:
            return False
        loan = self._device_ring.acquire(part.buffer_bytes)
        if loan is None:
            return False
        self._uploads.popleft()
        self.loans += [("device", loan)] if self.record else []
        ready = loan.ready
        read = self._read.popleft() if part.disk_bytes else None
        if read is not None:
            assert read.part == index, f"slice {index} is uploaded, slice {read.part} has been read"
            ready = max(ready, read.time)
        begin, end = self.up.run(f"upload {part.name}", ready, self.pace.latency + part.buffer_bytes / self.pace.upload)
        if read is not None:
            # What came from disk goes first, and its buffer is free when it has gone.
            read.loan.give_back(begin + self.pace.latency + part.disk_buffer_bytes / self.pace.upload)
        self._arrived.append(_Arrival(index, end, loan))
        return True

    def _compute(self, name: str, steps: Sequence[Step], costs: Sequence[Alike]) -> None:
        assert sum(count for _, count in costs) == len(steps), f"{name} has a cost for each of its micro-batches"
        each = [cost for cost, count in costs for _ in range(count)] if self.record else []
        if any(cost.waits_for_host for cost, _ in costs):
            self._together(name, each or [cost for cost, count in costs for _ in range(count)], steps)
        elif self.record:
            for step, cost in zip(steps, each, strict=True):
                self._alone(name, step_name(self.plan, step), cost, 1)
        else:
            for cost, count in costs:
                self._alone(name, name, cost, count)

    def _alone(self, name: str, label: str, cost: MicroBatch, count: int) -> None:
        """`count` micro-batches alike, one after the other: stages of a line, each as fast as it is fed.

        The k-th stage begins when the first micro-batch reaches it, and ends with the last one, or when it has done
        them all if it is the slower.
        """
        begin = self.compute.free
        waited = cost.gather + cost.bring
        if cost.gather:
            begin = max(begin, self.host.free)
            self.host.hold(f"gather {name}", begin, cost.gather * count, 0.0)
        if cost.bring:
            brought = max(begin + cost.gather, self.up.free)
            self.up.hold(f"bring {name}", brought, cost.bring * count, 0.0)
            begin = brought - cost.gather
        _, pages = self.disk.run(f"read pages {name}", self._pages_from, cost.pages * count)
        self._pages_from = begin
        experts = cost.experts
        own = cost.before + cost.near + cost.after
        if experts.read:
            _, read = self.disk.run(f"read experts {name}", begin + waited + own, experts.read * count)
            pages = max(pages, read + experts.first_computed)
        each = waited + own + experts.seconds
        start, work = begin + waited, cost.computing * count
        self.compute.hold(label, start, work, max(0.0, max(begin + each * count, pages) - start - work))
        self._send(name, cost, count, begin + each, self.compute.free)

    def _send(self, name: str, cost: MicroBatch, count: int, first: float, last: float) -> None:
        """Stages behind the computation: the first micro-batch reaches them at `first`, the last at `last`."""
        for lane, what, seconds in (
            (self.down, "send", cost.send),
            (self.host, "store", cost.store),
            (self.disk, "write pages", cost.write),
        ):
            if seconds:
                begin = max(lane.free, first)
                end = max(begin + seconds * count, last + seconds)
                lane.hold(f"{what} {name}", begin, seconds * count, end - begin - seconds * count)
                first, last = begin + seconds, end

    def _together(self, name: str, costs: Sequence[MicroBatch], steps: Sequence[Step]) -> None:
        """Micro-batches of which one computes while the host works for the other."""
        walked = costs if self.record else costs[:WALKED]
        asked: deque[tuple[str, MicroBatch, float]] = deque()
        for step, cost in zip(steps, walked, strict=False):
            label = step_name(self.plan, step) if self.record else name
            if len(asked) == AT_ONCE:
                self._finish(name, *asked.popleft())
            result = self._ask(name, label, cost)
            if cost.waits_for_host:
                asked.append((label, cost, result))
            else:
                self._finish(name, label, cost, result)
        while asked:
            self._finish(name, *asked.popleft())
        for cost in costs[len(walked) :]:
            self._as_before(cost)

    def _ask(self, name: str, label: str, cost: MicroBatch) -> float:
        """The first half of a micro-batch -> when what the host found is back."""
        _, brought = self.up.run(f"bring {name}", self.compute.free, cost.bring)
        _, ready = self.compute.run(label, max(self.compute.free, brought), cost.before)
        _, asked = self.down.run(f"queries {name}", ready, cost.queries)
        _, pages = self.disk.run(f"read pages {name}", self._pages_from, cost.pages)
        begin = max(self.host.free, asked)
        end = max(begin + cost.host, pages)
        if cost.host:
            self.host.hold(f"attend {name}", begin, cost.host, end - begin - cost.host)
            self._pages_from = begin
        self.compute.run(label, ready, cost.near)
        if cost.write:
            self.disk.run(f"write pages {name}", end, cost.write)
        return self.up.run(f"result {name}", end, cost.result)[1]

    def _finish(self, name: str, label: str, cost: MicroBatch, result: float) -> None:
        begin = max(self.compute.free, result)
        own, experts = cost.after, cost.experts
        end = begin + own + experts.seconds
        if experts is not NO_EXPERTS and experts.read:
            _, read = self.disk.run(f"read experts {name}", begin + own, experts.read)
            end = max(end, read + experts.first_computed)
        work = own + experts.computed
        self.compute.hold(label, begin, work, max(0.0, end - begin - work))
        self.down.run(f"send {name}", end, cost.send)

    def _as_before(self, cost: MicroBatch) -> None:
        """One more micro-batch in a line that has filled: every lane moves on by what the slowest takes."""
        busy = {
            "disk": cost.pages + cost.write + cost.experts.read,
            "upload": cost.bring + cost.result,
            "compute": cost.computing,
            "download": cost.queries + cost.send,
            "host": cost.host,
        }
        round_trip = cost.bring + cost.before + cost.queries + cost.host + cost.result + cost.after
        each = max(*busy.values(), (round_trip + cost.experts.seconds) / AT_ONCE)
        for name, lane in self.lanes.items():
            lane.busy += busy[name]
            lane.free += each


def _op(step: Step) -> Op:
    return step.op
