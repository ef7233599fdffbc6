"""Counts what a run does while it does it, and tells the doors: progress on the way, a report at the end."""

import time
from collections.abc import Callable
from collections.abc import Sequence as Several

from windlass.engine.engine import Engine
from windlass.engine.foresight import Foresight
from windlass.engine.lanes import added, bound_by, lane_seconds, together_busy
from windlass.engine.tally import Tally
from windlass.facts.forecast import Forecast
from windlass.facts.lane import LANES
from windlass.facts.progress import Progress
from windlass.facts.run_report import RunReport
from windlass.facts.work_done import PassesDone, WorkDone, together
from windlass.memory.process_memory import peak_resident_bytes, resident_bytes

# Progress is told at most this often (seconds), so that a fast model does not drown in events; ends of phases always.
INTERVAL = 0.2

OnProgress = Callable[[Progress], None]


class Measurements:
    """Of everything one engine has generated. Phases are "prefill" and "decode". `foresight` forecasts each call."""

    def __init__(self, engine: Engine, on_progress: OnProgress | None, foresight: Foresight | None = None) -> None:
        self.engine, self.on_progress, self.foresight = engine, on_progress, foresight
        self._forecast: Forecast | None = None
        self._call: dict[tuple[int, int], PassesDone] | None = None
        self.seconds = {"prefill": 0.0, "decode": 0.0}
        self.tokens = {"prefill": 0, "decode": 0}
        self.passes = {"prefill": 0, "decode": 0}
        self.lanes = {phase: dict.fromkeys(LANES, 0.0) for phase in self.seconds}
        self._totals = {"prefill": 0, "decode": 0}
        self._lanes_before = dict.fromkeys(LANES, 0.0)
        self._sequences = 0
        self._phase, self._phase_done = "prefill", 0
        self._told_done = 0
        self._phase_start = self._pass_start = self._told = time.perf_counter()
        self._phase_bytes = 0
        self._read = self._drawn = self._slices_done = 0

    def begin_call(self) -> None:
        """A call begins; what it does is forecast when it is over."""
        self._call = {}

    def end_call(self, tally: Tally) -> None:
        """The call is over, or was left; what was done of it is what is forecast."""
        if self.engine.trace is not None:
            self.engine.trace.end(time.perf_counter())
        passes, self._call = self._call, None
        if passes is None or not tally.sequences:
            return
        lengths = (tally.prompt_len, tally.gen_len)
        self._foretell(WorkDone(tally.prompts, tally.sequences, *lengths, tuple(passes.values())))

    def end_scoring(self, lengths: Several[int]) -> None:
        """The call that scored prompts of so many tokens is over, or was left after the last of them."""
        if self.engine.trace is not None:
            self.engine.trace.end(time.perf_counter())
        passes, self._call = self._call, None
        if passes is None or not lengths:
            return
        count = len(lengths)
        self._foretell(WorkDone(count, count, _mean(lengths), 1, tuple(passes.values()), scored=True))

    def _foretell(self, done: WorkDone) -> None:
        """Adds the forecast of work that is done, where somebody makes one."""
        if self.foresight is None:
            return
        forecast = self.foresight.of(done, self.engine.opened.facts, self.engine.plan)
        self._forecast = forecast if self._forecast is None else together(self._forecast, forecast)

    @property
    def phase(self) -> str:
        """What progress is told of."""
        return self._phase

    def begin_phase(self, phase: str, total: int, sequences: int) -> None:
        """A phase over a block of `sequences` begins, with at most `total` tokens to come."""
        self._phase, self._phase_done, self._told_done = phase, 0, 0
        self._totals[phase], self._sequences = total, sequences
        self._phase_start, self._phase_bytes = time.perf_counter(), self.engine.reader.bytes_read

    def end_phase(self) -> None:
        """The phase is over: what it came to is told, however short it was and however early answers ended."""
        self._totals[self._phase] = self._phase_done
        if self.on_progress is not None and self._told_done < self._phase_done:
            self._tell_now(self.on_progress, time.perf_counter())

    def begin_pass(self, read: int, drawn: int) -> None:
        """A pass begins that will read `read` tokens of prompts, and `drawn` tokens that sequences decode."""
        self._lanes_before = lane_seconds(self.engine, sum(self.seconds.values()))
        self._pass_start = time.perf_counter()
        if self.engine.trace is not None:
            self.engine.trace.begin(self._pass_start)
        self._read, self._drawn, self._slices_done = read, drawn, 0

    def end_slice(self) -> None:
        """A layer has been computed for all tokens of the pass."""
        self._slices_done += 1
        self.tell()

    def end_pass(self, sequences: int) -> None:
        """The pass is over; `sequences` of the block were running."""
        now = time.perf_counter()
        taken = now - self._pass_start
        if self.engine.trace is not None:
            self.engine.trace.end_pass(now)
        grown = added(self._lanes_before, lane_seconds(self.engine, sum(self.seconds.values()) + taken))
        # What reads and decodes in one row shares its time, token by token.
        reading = 1.0 if not self._drawn else self._read / (self._read + self._drawn)
        for phase, share, tokens in (("prefill", reading, self._read), ("decode", 1 - reading, self._drawn)):
            self.seconds[phase] += taken * share
            self.lanes[phase] = {lane: seconds + share * grown[lane] for lane, seconds in self.lanes[phase].items()}
            self.tokens[phase] += tokens
        self.passes["decode" if self._drawn else "prefill"] += 1
        if self._call is not None:
            done = PassesDone(1, self._read, self._drawn)
            self._call[done.kind] = done.joined(self._call.get(done.kind, PassesDone()))
        self._phase_done += self._pass_tokens
        self._read = self._drawn = self._slices_done = 0
        self._sequences = sequences
        self.tell()

    @property
    def _pass_tokens(self) -> int:
        """What the present pass will add to its phase."""
        return self._read if self._phase == "prefill" else self._drawn

    @property
    def _done(self) -> float:
        """Tokens of the phase; of a pass in progress the share of the layers that are done, as a pass may be long."""
        layers = self.engine.opened.facts.num_layers
        return self._phase_done + self._pass_tokens * min(self._slices_done / layers, 1.0)

    def tell(self) -> None:
        """Reports progress, if anyone listens and it is time."""
        now = time.perf_counter()
        if self.on_progress is None or now - self._told < INTERVAL:
            return
        self._tell_now(self.on_progress, now)

    def _tell_now(self, on_progress: OnProgress, now: float) -> None:
        seconds, done = now - self._phase_start, self._done
        self._told, self._told_done = now, int(done)
        rate = done / seconds if seconds else 0.0
        left = (self._totals[self._phase] - done) / rate if rate else 0.0
        on_progress(
            Progress(
                phase=self._phase,
                done=int(done),
                total=max(self._totals[self._phase], int(done)),
                seconds=seconds,
                tokens_per_second=rate,
                disk_rate=(self.engine.reader.bytes_read - self._phase_bytes) / seconds if seconds else 0.0,
                disk_limit=self.engine.disk.rate,
                memory=resident_bytes(),
                memory_budget=self.engine.plan.host_bill.budget,
                seconds_left=left,
                sequences=self._sequences,
            )
        )

    def report(self) -> RunReport:
        """Everything so far. The forecast is there once the calls under way have ended."""
        engine, clock = self.engine, self.engine.cache.clock
        total, waited = sum(self.seconds.values()), engine.weights.wait_seconds
        reader = engine.reader
        link_seconds = engine.accelerator.busy_seconds()[0] if engine.accelerator else 0.0
        link_bytes = engine.accelerator.copied_bytes()[0] if engine.accelerator else 0
        return RunReport(
            load_seconds=engine.load_seconds,
            prefill_tokens=self.tokens["prefill"],
            prefill_seconds=self.seconds["prefill"],
            prefill_passes=self.passes["prefill"],
            decode_tokens=self.tokens["decode"],
            decode_seconds=self.seconds["decode"],
            decode_passes=self.passes["decode"],
            bytes_read=reader.bytes_read,
            disk_rate=reader.bytes_read / reader.busy_seconds if reader.busy_seconds else 0.0,
            disk_limit=engine.disk.rate,
            compute_seconds=max(0.0, total - waited),
            wait_seconds=waited,
            prefill_lanes=self.lanes["prefill"],
            decode_lanes=self.lanes["decode"],
            link_bytes=link_bytes,
            link_rate=link_bytes / link_seconds if link_seconds else 0.0,
            attention_seconds=clock.seconds,
            attention_bytes=clock.nbytes,
            peak_memory=peak_resident_bytes(),
            memory_budget=engine.plan.host_bill.budget,
            bound_by=bound_by(together_busy(self.lanes.values()), total),
            forecast=self._forecast if self._call is None else None,
        )


def _mean(counts: Several[int]) -> int:
    """Rounded up."""
    return -(-sum(counts) // len(counts))
