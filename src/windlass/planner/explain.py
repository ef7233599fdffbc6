"""Why a plan is the best there is, and what would make it faster: the search, asked again with one thing changed."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from windlass.errors import BudgetError
from windlass.facts.forecast import PhaseForecast
from windlass.facts.lane import LANES
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.weight_formats import SMALLER_FORMATS
from windlass.facts.workload import Workload
from windlass.planner.rule import Demands
from windlass.planner.search import QUICK, Candidate, Found, explore
from windlass.planner.smaller_weights import smaller_weights
from windlass.units import GIB, format_seconds, format_size

# Below this a change is not worth a line.
WORTH_A_LINE = 1.05

NAMES = {
    "disk": "the disk",
    "upload": "the link to the device",
    "compute": "computing",
    "download": "the link from the device",
    "host": "the host's attention",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing changed: what, by how many times the job is faster, and in how many seconds it is then done."""

    what: str
    gain: float
    seconds: float
    lossless: bool = True

    @property
    def line(self) -> str:
        """`64 GiB more memory: 2.1 times`."""
        return f"{self.what}: {self.gain:.1f} times{'' if self.lossless else ' (not lossless)'}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`changes` are sorted by their gain, the largest first."""

    best: Candidate
    runner_up: Candidate | None
    changes: tuple[Change, ...]
    generated: float

    def lines(self) -> list[str]:
        """For people: what is expected, what binds it, why nothing else was chosen, and what would help."""
        told, plan = self.best.forecast, self.best.plan
        work = told.prefill.seconds + told.decode.seconds
        return [
            f"forecast {format_seconds(told.prefill.seconds)} of prefill ({told.prefill.rate:.1f} prompt tokens/s), "
            f"{format_seconds(told.decode.seconds)} of decode ({told.decode.rate:.2f} tok/s, "
            f"{format_seconds(told.decode.seconds_per_pass)} a pass)",
            f"in all   {format_seconds(told.seconds)} with loading, from {format_seconds(told.seconds * told.low)} to "
            f"{format_seconds(told.seconds * told.high)}",
            f"counts   {self.generated:,.0f} generated tokens: {self.generated / work if work else 0.0:.2f} tok/s with "
            "the prompts' time included; prompt tokens are not counted",
            f"bound by {_bound('prefill', told.prefill)}",
            f"         {_bound('decode', told.decode)}" if told.decode.passes else "         nothing to decode",
            f"beside   {self._runner_up()}",
            *self._advice(plan),
        ]

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "kind": self.best.kind,
            "bound_by": {"prefill": self.best.forecast.prefill.bound_by, "decode": self.best.forecast.decode.bound_by},
            "generated_tokens": self.generated,
            "runner_up": None
            if self.runner_up is None
            else {
                "kind": self.runner_up.kind,
                "block_size": self.runner_up.plan.block_size,
                "seconds": self.runner_up.forecast.seconds,
            },
            "changes": [
                {"what": each.what, "gain": each.gain, "seconds": each.seconds, "lossless": each.lossless}
                for each in self.changes
            ],
        }

    def _runner_up(self) -> str:
        if self.runner_up is None:
            return "no other plan fits"
        other, mine = self.runner_up.forecast, self.best.forecast
        slower = other.seconds / mine.seconds if mine.seconds else 1.0
        lane = max(LANES, key=lambda name: _busy(other.prefill, name) + _busy(other.decode, name))
        what = f"{self.runner_up.kind}, a block of {self.runner_up.plan.block_size}: {format_seconds(other.seconds)}"
        if slower < 1:
            return f"{what}, which is sooner than asked and takes more memory"
        return f"{what}, {slower:.2f} times as long, most of it for {NAMES[lane]}"

    def _advice(self, plan: Plan) -> list[str]:
        if not (plan.streamed_bytes or plan.far_pages or plan.disk_pages or plan.experts_travel):
            where = "the memory of the device" if plan.host is not None else "memory"
            return [f"note     the model fits in {where}: no offloading is needed"]
        if not self.changes:
            return ["help     none of the changes that were tried makes it faster"]
        first, *others = [change.line for change in self.changes]
        return [f"help     {first}", *(f"         {line}" for line in others)]


def explained(
    model: ModelFacts, workload: Workload, demands: Demands, machine: Machine, found: Found, more: Sequence["Altered"]
) -> Explanation:
    """The explanation of what the search found; `more` are further changes to try."""
    best = found.best.forecast.seconds
    changes = []
    for altered in (*_alternatives(model, workload, demands, machine, found.best.plan), *more):
        with suppress(BudgetError):
            other = explore(altered.model, workload, altered.demands, altered.machine, QUICK).best.forecast.seconds
            if other and best / other >= WORTH_A_LINE:
                changes.append(Change(altered.what, best / other, other, altered.lossless))
    ordered = sorted(changes, key=lambda change: -change.gain)
    return Explanation(found.best, found.runner_up, tuple(ordered), workload.generated_tokens)


@dataclass(frozen=True, slots=True)
class Altered:
    """What the search is asked instead."""

    what: str
    model: ModelFacts
    demands: Demands
    machine: Machine
    lossless: bool = True


def _alternatives(
    model: ModelFacts, workload: Workload, demands: Demands, machine: Machine, plan: Plan
) -> Iterator[Altered]:
    """One thing at a time, each something that a person can do."""
    streams = bool(plan.streamed_bytes or plan.host_bill.expert_ring or plan.disk_pages)
    if streams or plan.block_size < workload.num_prompts:
        for extra in _extra_memory(plan.host_bill.budget):
            yield Altered(f"{format_size(extra)} more memory", model, _richer(demands, extra), machine)
    if demands.block_size and demands.block_size < workload.num_prompts:
        for block in (demands.block_size * 3, workload.num_prompts):
            if block <= workload.num_prompts:
                larger = replace(demands, block_size=block)
                yield Altered(f"block of {block} instead of {demands.block_size}", model, larger, machine)
    if streams and plan.host_bill.ring + plan.host_bill.expert_ring + plan.disk_pages:
        disk = replace(machine.disk, rate=2 * machine.disk.rate)
        faster = replace(machine, disk=disk, disk_write=2 * machine.disk_write)
        yield Altered("a disk twice as fast", model, demands, faster)
    if not model.is_packed and model.itemsize > 1:
        for name in SMALLER_FORMATS:
            yield Altered(f"{name} weights", smaller_weights(model, name), demands, machine, lossless=False)


def _extra_memory(budget: int) -> list[int]:
    """As much again, and what is missing to the next power of two: memory comes in such sizes."""
    power = GIB
    while power <= budget:
        power *= 2
    return sorted({power - budget, budget})


def _richer(demands: Demands, extra: int) -> Demands:
    if demands.host_budget is None:
        return replace(demands, budget=demands.budget + extra)
    return replace(demands, host_budget=demands.host_budget + extra)


def _busy(phase: PhaseForecast, lane: str) -> float:
    return phase.lanes.get(lane, 0.0)


def _bound(name: str, phase: PhaseForecast) -> str:
    """`decode by the disk, busy 98 % of the time; computing 12 %`: the idle rest of each lane is what is left."""
    if not phase.seconds:
        return f"{name} by nothing"
    shares = {lane: min(1.0, phase.lanes.get(lane, 0.0) / phase.seconds) for lane in LANES}
    first = phase.bound_by
    others = ", ".join(
        f"{NAMES[lane]} idle {1 - share:.0%}" for lane, share in shares.items() if lane != first and share >= 0.005
    )
    return f"{name} by {NAMES[first]}, busy {shares[first]:.0%} of the time{f'; {others}' if others else ''}"
