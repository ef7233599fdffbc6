"""What a run will take, before it has begun: the schedule that the runner executes, walked on a machine's rates.

Nothing here knows the order of a pass: `schedule` gives it, `Pipeline` walks it with finite buffers, and this file says
what each step costs. Stated once, so that it can be disputed:

* a product takes 2 x parameters x rows flops at the rate measured for as many rows; each micro-batch reads the weights
  anew, which the measured rate holds;
* decode attention takes the bytes of keys and values at the rate measured for as many query heads a key head; that of
  prompts the flops of all pairs that are attended to;
* a layer costs a micro-batch a fixed time, and its rows one more by their bytes;
* experts are chosen at random: r rows of k out of E want E (1 - (1 - k/E)^r) of them, each read for each micro-batch;
* the disk reads and writes in turn, never both; the link carries each way on its own;
* memory that is written by a direct read or read by an upload serves nobody else meanwhile (Costs._contention).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.lane import LANES
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.piece import round_up
from windlass.facts.plan import Plan
from windlass.facts.time_span import TimeSpan
from windlass.facts.weight_group import WeightGroup
from windlass.facts.work_done import WorkDone
from windlass.facts.workload import Workload
from windlass.planner.done_passes import done_passes
from windlass.planner.job_passes import PassShape, first_passes, job_passes
from windlass.planner.layer_work import SliceWork, slice_works
from windlass.planner.micro_batch import Alike, Costs
from windlass.planner.pace import LOGITS_PASSES, SMALL_READ_SECONDS, Pace, pace_of
from windlass.planner.pipeline import PassWork, Pipeline
from windlass.planner.schedule import micro_batches, schedule
from windlass.units import MIB

# Passes alike are walked so often; the last of them stands for all that follow.
WALKED_PASSES = 3
# The head's rows at a time where it stays in memory: so many bytes of logits (engine.runner).
LOGITS_BYTES = 16 * MIB


def forecast(model: ModelFacts, plan: Plan, machine: Machine, workload: Workload) -> Forecast:
    """What the whole job takes. Raises UsageError where the machine lacks a rate that the plan depends on."""
    run, passes = Run(model, plan, machine, workload), job_passes(plan, workload)
    prefill, decode = run.phases(passes.shapes)
    # The first token of each sequence comes with its prompt.
    drawn = max(0, round(workload.generated_tokens) - workload.num_prompts)
    return Forecast(run.load_seconds(), prefill.told(passes.read), decode.told(drawn))


def forecast_of(model: ModelFacts, plan: Plan, machine: Machine, done: WorkDone) -> Forecast:
    """What the passes that a call has made should have taken, loading included. Raises as `forecast`."""
    run = Run(model, plan, machine, done.workload)
    prefill, decode = run.phases(done_passes(plan, done))
    return Forecast(run.load_seconds(), prefill.told(done.read_tokens), decode.told(done.drawn_tokens))


def timeline(
    model: ModelFacts, plan: Plan, machine: Machine, workload: Workload, decode_passes: int = 4
) -> list[TimeSpan]:
    """Every span of the beginning, in order of time: the first prompts, and the first `decode_passes` decode passes.

    More would be the same again. Seconds count from when the model is loaded.
    """
    run = Run(model, plan, machine, workload)
    pipeline = Pipeline(plan, run.pace, record=True)
    for shape in first_passes(plan, workload, decode_passes):
        pipeline.run_pass(run.work(shape))
    return sorted(pipeline.spans, key=lambda span: (span.start, LANES.index(span.lane)))


@dataclass(slots=True)
class Phase:
    """Adds up a phase of a job: passes walked, and those they stand for."""

    seconds: float = 0.0
    passes: float = 0.0
    lanes: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LANES, 0.0))

    def add(self, seconds: float, lanes: Mapping[str, float], times: float) -> None:
        """`times` times so long."""
        self.seconds += seconds * times
        for name, busy in lanes.items():
            self.lanes[name] += busy * times

    def told(self, tokens: int) -> PhaseForecast:
        """The phase, over `tokens` tokens. Work that a lane has begun for the next phase may count in this one."""
        return PhaseForecast(tokens, round(self.passes), self.seconds, dict(self.lanes))


class Run:
    """One model, plan, machine and workload: prices passes, each shape of pass once."""

    def __init__(self, model: ModelFacts, plan: Plan, machine: Machine, workload: Workload) -> None:
        self.model, self.plan, self.workload = model, plan, workload
        self.pace: Pace = pace_of(machine, plan)
        self.slices: tuple[SliceWork, ...] = slice_works(model, plan)
        self._costs = Costs(plan, workload, self.pace, model.row_bytes, model.itemsize)
        self._works: dict[PassShape, PassWork] = {}

    def work(self, shape: PassShape) -> PassWork:
        """A pass of this shape, ready to be walked."""
        if shape not in self._works:
            self._works[shape] = self._work(shape)
        return self._works[shape]

    def phases(self, shapes: Iterable[tuple[PassShape, float]]) -> tuple[Phase, Phase]:
        """Prefill and decode over passes of these shapes, each with how often it comes.

        A pass that decodes counts as one of decode. Where it reads too, its time goes to both phases, by their tokens:
        so a run is measured.
        """
        prefill, decode = Phase(), Phase()
        pipeline, walked = Pipeline(self.plan, self.pace), set[bool]()
        for shape, repeats in shapes:
            # Behind the first pass of a kind the lanes are full, and differ by little from shape to shape.
            walks = WALKED_PASSES if bool(shape.decoding) not in walked else WALKED_PASSES - 1
            walked.add(bool(shape.decoding))
            reading = shape.reading / shape.tokens
            for seconds, lanes, times in self._walked(pipeline, shape, repeats, walks):
                prefill.add(seconds, lanes, times * reading)
                decode.add(seconds, lanes, times * (1.0 - reading))
            (decode if shape.decoding else prefill).passes += repeats
        return prefill, decode

    def _walked(
        self, pipeline: Pipeline, shape: PassShape, repeats: float, walks: int
    ) -> Iterator[tuple[float, Mapping[str, float], float]]:
        """Seconds of the first `walks` of `repeats` passes alike, and how many each stands for: the last for the rest.

        With them come the seconds that each lane is busy.
        """
        work, left = self.work(shape), repeats
        for walk in range(walks):
            if left <= 0.0:
                return
            before, busy = pipeline.compute.free, {name: lane.busy for name, lane in pipeline.lanes.items()}
            seconds = pipeline.run_pass(work) - before
            times = min(1.0, left) if walk < walks - 1 else left
            yield seconds, {name: lane.busy - busy[name] for name, lane in pipeline.lanes.items()}, times
            left -= times

    def load_seconds(self) -> float:
        """What stays is read once, and what stays on a device is carried there."""
        here, there = self.plan.resident, self.plan.host_resident
        sizes = {source.key: source.nbytes for group in self.model.groups for source in group.sources}
        device = sum(sizes.get(key, 0) for key in here)
        return (device + sum(sizes.get(key, 0) for key in there)) / self.pace.disk + device / self.pace.upload

    def _work(self, shape: PassShape) -> PassWork:
        rows = micro_batches(self.plan, shape.tokens)
        streamed = any(part.streamed_bytes for part in self.plan.slices if part.kind == "head")
        # Rows that are scored go through one part of the head after the other.
        parts = sum(part.kind == "head" for part in self.plan.slices) if self.workload.scored else 1
        few = max(1, LOGITS_BYTES * parts // (4 * self.model.vocab_size))
        at_once = shape.head_rows if streamed and not self.workload.scored else few
        priced: dict[object, tuple[Alike, ...]] = {}
        costs: list[tuple[Alike, ...]] = []
        for work in self.slices:
            if work.part.kind == "head":
                costs.append(((self._costs.head(work, shape.head_rows, at_once), 1),))
                continue
            alike = _likeness(work)
            if alike not in priced:
                priced[alike] = self._costs.layer(work, shape, rows)
            costs.append(priced[alike])
        here = self.pace.computing
        return PassWork(
            schedule(self.plan, shape.tokens, shape.head_rows),
            costs,
            [here.copying(work.converted_bytes) for work in self.slices],
            self._embedding(shape.tokens),
            here.copying(shape.head_rows * self.model.vocab_size * 4 * LOGITS_PASSES),
        )

    def _embedding(self, tokens: int) -> tuple[float, float, float]:
        """Seconds of disk, upload and compute that looking up `tokens` rows takes."""
        compute = self.pace.computing.copying(2 * tokens * self.model.row_bytes)
        group = next((group for group in self.model.groups if group.kind == "embedding"), None)
        if group is None or all(source.key in self.plan.resident for source in group.sources):
            return 0.0, 0.0, compute
        vocabulary = max(1, self.model.vocab_size)
        rows = vocabulary * (1.0 - (1.0 - 1.0 / vocabulary) ** tokens)
        upload = self.pace.latency + rows * self.model.row_bytes / self.pace.upload
        if all(source.key in self.plan.resident | self.plan.host_resident for source in group.sources):
            return 0.0, upload, compute
        return self._small_reads(group, rows), upload if self.plan.host is not None else 0.0, compute

    def _small_reads(self, group: WeightGroup, rows: float) -> float:
        """Seconds of reading `rows` rows of a table that lie apart, no more than the whole table."""
        table = sum(source.nbytes for source in group.sources)
        nbytes = min(float(table), rows * round_up(self.model.row_bytes))
        return max(nbytes / self.pace.disk, rows * SMALL_READ_SECONDS / self.pace.disk_depth)


def _likeness(work: SliceWork) -> tuple[object, ...]:
    """Layers of which this is equal cost the same."""
    part = work.part
    return (
        part.disk_bytes,
        part.streamed_bytes,
        work.weight_bytes,
        work.parameters,
        work.projections,
        work.cache_bytes,
        work.attended_bytes,
        work.sharing,
        work.rebuild_flops,
        work.attention,
        work.experts,
    )
