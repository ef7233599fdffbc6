"""Finds the plan: candidates that fit every budget, priced by the forecast; the fastest for the work at hand wins.

What is tried: how many sequences a block holds; how wide micro-batches are, of prompts and of decoding rows; how many
tokens a pass reads; how far the rings let reads run ahead; where keys and values lie, and so where their attention is
computed. Weights get what this leaves, exact to a tensor. First every block size with the likeliest places for its keys
and values, then, from the best of these, one change after the other for as long as one helps. Without a machine there
is nothing to price by, and the rule of planner/rule.py decides.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from windlass.facts.forecast import Forecast
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.balance import Rooms, balanced
from windlass.planner.cost import forecast
from windlass.planner.disk_cache import disk_cache_memory
from windlass.planner.layer_work import slice_works
from windlass.planner.pace import pace_of
from windlass.planner.residency import RING_SLICES
from windlass.planner.rule import (
    FIXED_SCRATCH,
    Demands,
    Division,
    divided,
    fits,
    open_bytes,
    page_bytes,
    pages_of,
    rule,
)
from windlass.units import MIB

__all__ = ["FIXED_SCRATCH", "Candidate", "Demands", "Effort", "Found", "explore", "search"]

BLOCKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)
RINGS = (RING_SLICES, 3, 4)
# A change has to gain this much to be taken: below it forecasts do not tell plans apart.
WORTH_IT = 0.998
# The allocator's least, as engine.rehearsal has it.
LEAST_ACTIVATIONS = 4 * MIB


@dataclass(frozen=True, slots=True)
class Effort:
    """Candidates priced in all, and blocks looked at in the first round: a search ends, however large the model."""

    candidates: int
    blocks: int


THOROUGH, QUICK = Effort(64, 10), Effort(12, 4)


@dataclass(frozen=True, slots=True)
class Choice:
    """One point of the search. Shares are of the block's keys and values; the rest of them is on disk.

    `passes` is by how much prefill passes are shorter than the rule has them, `decode_rows` cuts passes that decode.
    """

    block: int
    width: int
    device: float = 1.0
    host: float = 0.0
    ring_slices: int = RING_SLICES
    passes: int = 1
    decode_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan that fits, and what it takes."""

    plan: Plan
    forecast: Forecast

    @property
    def kind(self) -> str:
        """Where weights and keys and values mainly lie, for people: plans of one kind differ in sizes only."""
        plan = self.plan
        if not (plan.streamed_bytes or plan.experts_travel):
            weights = "all weights resident"
        elif plan.host_bill.ring or plan.host_bill.expert_ring:
            weights = "weights from disk"
        else:
            weights = "weights from host memory"
        shares = {
            "where the model computes": plan.device_pages,
            "in host memory": plan.host_pages,
            "on disk": plan.disk_pages,
        }
        places = [place for place, pages in shares.items() if pages * 20 > plan.num_pages]
        return f"{weights}, keys and values {' and '.join(places)}"


@dataclass(frozen=True, slots=True)
class Found:
    """The best of all candidates; `others` are the rest, the fastest first."""

    best: Candidate
    others: tuple[Candidate, ...]

    @property
    def runner_up(self) -> Candidate | None:
        """The best candidate of another kind, else the best with another block."""
        best = self.best
        for other in self.others:
            if other.kind != best.kind:
                return other
        return next((other for other in self.others if other.plan.block_size != best.plan.block_size), None)


def search(model: ModelFacts, workload: Workload, demands: Demands, machine: Machine | None = None) -> Plan:
    """The plan for a model, a workload and a budget. Raises BudgetError, with the smallest change that would do."""
    return rule(model, workload, demands) if machine is None else explore(model, workload, demands, machine).best.plan


def explore(
    model: ModelFacts, workload: Workload, demands: Demands, machine: Machine, effort: Effort = THOROUGH
) -> Found:
    """The search with all that it looked at. Raises BudgetError where no plan fits, UsageError for a poor profile."""
    tried = _Tried(model, workload, demands, machine, effort)
    for choice in _first_round(tried):
        tried.price(choice)
    best = tried.best()
    if best is None:
        # The rule knows the smallest change that would do, and takes every way out; what it finds is an answer too.
        plan = rule(model, workload, demands)
        return Found(Candidate(plan, forecast(model, plan, machine, workload)), ())
    while (better := tried.improved(best)) is not None:
        best = better
    ordered = sorted(tried.candidates(), key=lambda found: (found.forecast.seconds, _memory(found.plan)))
    return Found(ordered[0], tuple(ordered[1:]))


class _Tried:
    """Everything that has been priced, by choice; None where it does not fit."""

    def __init__(
        self, model: ModelFacts, workload: Workload, demands: Demands, machine: Machine, effort: Effort
    ) -> None:
        self.effort = effort
        self.model, self.workload, self.demands, self.machine = model, workload, demands, machine
        self.found: dict[Choice, Candidate | None] = {}

    def price(self, choice: Choice) -> Candidate | None:
        if choice not in self.found:
            self.found[choice] = None
            plan = self.plan(choice)
            if plan is not None and fits(plan):
                told = forecast(self.model, plan, self.machine, self.workload)
                self.found[choice] = Candidate(plan, told)
        return self.found[choice]

    def candidates(self) -> list[Candidate]:
        return [found for found in self.found.values() if found is not None]

    def best(self) -> Choice | None:
        fitting = {choice: found.forecast.seconds for choice, found in self.found.items() if found is not None}
        return min(fitting, key=lambda choice: fitting[choice]) if fitting else None

    def improved(self, best: Choice) -> Choice | None:
        """A neighbour that is worth it, or None where there is none or enough has been tried."""
        found = self.found[best]
        assert found is not None
        for choice in _neighbours(self, best):
            if len(self.candidates()) >= self.effort.candidates:
                return None
            other = self.price(choice)
            if other is not None and other.forecast.seconds < WORTH_IT * found.forecast.seconds:
                return choice
        return None

    def asked(self, width: int) -> Demands:
        """The demands with micro-batches of another width: what was measured for one is taken to grow with it."""
        measured = self.demands
        if width == measured.micro_batch_tokens:
            return measured
        activations = int(measured.activations * width / measured.micro_batch_tokens)
        return replace(measured, micro_batch_tokens=width, activations=max(LEAST_ACTIVATIONS, activations))

    def plan(self, choice: Choice) -> Plan | None:
        """What the choice comes to, or None where keys and values have no place or micro-batches exceed a pass."""
        asked, pages = self.asked(choice.width), pages_of(self.workload, self.demands, choice.block)
        here, there = round(choice.device * pages), round(choice.host * pages)
        if asked.host_budget is None:
            here, there = max(1, here), 0
        there = min(there, pages - here)
        on_disk = pages - here - there
        if on_disk * page_bytes(self.model, asked) > asked.offload:
            return None
        division = Division(choice.block, there, on_disk, None, choice.ring_slices)
        plan = divided(self.model, self.workload, asked, division)
        whole = plan.pass_tokens
        # More rows than a pass has would only take room from the weights.
        if choice.width > max(whole, self.demands.micro_batch_tokens):
            return None
        if choice.passes > 1:
            shorter = max(choice.block, choice.width, -(-whole // choice.passes))
            plan = divided(self.model, self.workload, asked, replace(division, pass_tokens=shorter))
        return replace(plan, micro_batch_sequences=choice.decode_rows)


def _first_round(tried: _Tried) -> Iterator[Choice]:
    """Every block size with the likeliest places for its keys and values."""
    width = tried.demands.micro_batch_tokens
    for block in _blocks(tried.demands, tried.workload, tried.effort.blocks):
        for device, host in _places(tried, block, width):
            yield Choice(block, width, device, host)


def _blocks(demands: Demands, workload: Workload, few: int = len(BLOCKS)) -> list[int]:
    """At most `few` block sizes, the largest first and the smallest last; only the one asked for where one was."""
    most = max(1, workload.num_prompts)
    if demands.block_size:
        return [min(demands.block_size, most)]
    sizes = sorted({size for size in BLOCKS if size < most} | {min(most, BLOCKS[-1])}, reverse=True)
    # Blocks that share the prompts out evenly waste no pass on a small rest.
    even = sorted({-(-most // -(-most // size)) for size in sizes}, reverse=True)
    if few >= len(even):
        return even
    return [even[place * (len(even) - 1) // (few - 1)] for place in range(few)]


def _places(tried: _Tried, block: int, width: int) -> Iterable[tuple[float, float]]:
    """Shares of the keys and values on the device and on the host."""
    model, workload, asked = tried.model, tried.workload, tried.demands
    pages, page = pages_of(workload, asked, block), page_bytes(model, asked)
    if asked.host_budget is None:
        whole = divided(model, workload, asked, Division(block))
        if whole.memory.spare >= 0 or not asked.offload:
            return [(1.0, 0.0)]
        fixed = open_bytes(model, asked, block) + disk_cache_memory(model, asked.page_tokens, block)
        room = whole.memory.cache + whole.memory.spare - fixed
        return [(max(0, room // page) / pages, 0.0)]
    bare = divided(model, workload, asked, Division(block, host_pages=pages))
    assert bare.host is not None
    device = replace(bare.memory, resident=0).spare
    # Whatever rests there may give way: weights to the disk, and so to a ring, for which a slice or two is set aside.
    ring = RING_SLICES * max((part.buffer_bytes for part in bare.slices), default=0)
    host = replace(bare.host, resident=0, cache=0, ring=max(bare.host.ring, ring)).spare
    spill = disk_cache_memory(model, asked.page_tokens, block) if asked.offload else 0
    most_here, most_there = min(1.0, max(0, device // page) / pages), max(0.0, min(1.0, (host // page) / pages))
    found = {(most_here, min(most_there, 1.0 - most_here)), (0.0, most_there), (min(0.5, most_here), most_there)}
    rooms = Rooms(device, host - spill, asked.offload)
    pace = pace_of(tried.machine, bare)
    best = balanced(model, workload, bare, pace, slice_works(model, bare), rooms)
    if best is not None:
        found.add((best.device, min(best.host, 1.0 - best.device)))
    return sorted(found)


def _neighbours(tried: _Tried, choice: Choice) -> Iterator[Choice]:
    """What differs in one respect, those that gain most often first. Another block has places of its own."""
    demands = tried.demands
    for rows in (None, -(-choice.block // 4), -(-choice.block // 8)):
        if demands.host_budget is not None and choice.block >= 8:
            yield replace(choice, decode_rows=rows)
    for size in _next_to(choice.block, _blocks(demands, tried.workload)):
        # Narrower micro-batches may be what a larger block has room beside.
        narrower = [] if demands.width_fixed or size < choice.block else _next_to(choice.width, WIDTHS)[-1:]
        for width in (choice.width, *(width for width in narrower if width < choice.width)):
            for device, host in _places(tried, size, width):
                yield replace(choice, block=size, width=width, device=device, host=host, decode_rows=None)
    if not demands.width_fixed:
        yield from (replace(choice, width=width) for width in _next_to(choice.width, WIDTHS))
    yield from (replace(choice, ring_slices=size) for size in _next_to(choice.ring_slices, RINGS))
    yield from (replace(choice, passes=passes) for passes in (choice.passes * 2, choice.passes // 2) if passes >= 1)
    if demands.host_budget is not None:
        for device in (choice.device * 0.75, min(1.0, choice.device * 1.25 + 0.05)):
            yield replace(choice, device=device, host=max(0.0, min(1.0 - device, choice.host + choice.device - device)))


def _next_to(size: int, sizes: Iterable[int]) -> list[int]:
    """The next larger and the next smaller one."""
    larger = min((other for other in sizes if other > size), default=None)
    smaller = max((other for other in sizes if other < size), default=None)
    return [other for other in (larger, smaller) if other is not None]


def _memory(plan: Plan) -> int:
    """Bytes that a plan takes of all memories."""
    bills = (plan.memory,) if plan.host is None else (plan.memory, plan.host)
    return sum(bill.budget - bill.spare for bill in bills)


def cheapest(found: Found, seconds: float) -> Candidate | None:
    """The candidate that takes least memory of those that are done within `seconds`, or None."""
    within = [each for each in (found.best, *found.others) if each.forecast.seconds <= seconds]
    return min(within, key=lambda each: _memory(each.plan)) if within else None
