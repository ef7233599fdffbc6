"""Which passes a job is made of, as engine.generation makes them, told in a few shapes: what differs little is one."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.job_rows import JobRows, rows_of
from windlass.planner.job_walk import Stretch, walk

# Decode passes grow longer with the context; so many pieces of a stretch of them are told apart.
PIECES = 4
# Shapes of passes that only read, that read and decode, and that only decode: each costs a forecast some walks.
MOST = {(False, True): 3, (True, True): 5, (True, False): 5}


@dataclass(frozen=True, slots=True)
class PassShape:
    """One pass: `decoding` sequences get a token each, and behind them in the row stand `reading` tokens of prompts.

    A row that decodes attends to `context` tokens, itself among them. Rows that are read belong to prompts with `own`
    tokens to read behind `shared` ones that are stored. `head_rows` rows want logits. `sequences` hold a place and
    `pages` pages each, in order, of those that the plan has. Tokens of a prompt and pages are means.
    """

    decoding: int
    reading: int
    context: float
    head_rows: int
    sequences: int
    pages: float
    own: float
    shared: float

    @property
    def tokens(self) -> int:
        """Rows of the pass."""
        return self.decoding + self.reading


@dataclass(frozen=True, slots=True)
class JobPasses:
    """The shapes of a job's passes in the order in which they come first, each with how many passes it stands for.

    Prompts have `read` tokens that go through the model in all.
    """

    shapes: tuple[tuple[PassShape, float], ...]
    read: int


def job_passes(plan: Plan, workload: Workload) -> JobPasses:
    """The passes of a job."""
    rows = rows_of(plan, workload)
    shapes = condensed(_whole_job(walk(rows, plan), rows))
    return JobPasses(tuple((_shape(each, rows, workload), each.passes) for each in shapes), rows.read)


def first_passes(plan: Plan, workload: Workload, decoding: int) -> Iterator[PassShape]:
    """The passes that a job begins with, one by one, until `decoding` of them have decoded."""
    rows = rows_of(plan, workload)
    for stretch in walk(rows, plan):
        for number in range(stretch.passes):
            if stretch.decoding:
                if not decoding:
                    return
                decoding -= 1
            context = stretch.context + number * stretch.decoding
            yield _shape(Passes.of(stretch._replace(passes=1, context=context), 1.0), rows, workload)


@dataclass(slots=True)
class Passes:
    """`passes` passes that count as one kind; the other figures are the mean of one of them. `context` is of all rows
    that decode together."""

    passes: float
    decoding: float
    context: float
    reading: float
    drawn: float
    sequences: float

    @classmethod
    def of(cls, stretch: Stretch, weight: float) -> "Passes":
        """Those of a stretch, each of which stands for `weight` passes."""
        context = stretch.context + stretch.decoding * (stretch.passes - 1) / 2
        rest = (stretch.reading, stretch.drawn, stretch.sequences)
        return cls(stretch.passes * weight, stretch.decoding, context, *rest)

    @property
    def place(self) -> tuple[float, float, float]:
        """Where they stand beside others: what a pass costs goes by factors of these."""
        return math.log2(1 + self.decoding + self.reading), math.log2(1 + self.context), math.log2(1 + self.reading)

    def apart(self, other: "Passes") -> float:
        """What is lost by taking both for one kind, as in Ward's clustering."""
        distance = sum((mine - its) ** 2 for mine, its in zip(self.place, other.place, strict=True))
        return distance * self.passes * other.passes / (self.passes + other.passes)

    def joined(self, other: "Passes") -> "Passes":
        """Both, as one kind."""
        total = self.passes + other.passes
        mine, its = self.passes / total, other.passes / total
        return Passes(
            total,
            mine * self.decoding + its * other.decoding,
            mine * self.context + its * other.context,
            mine * self.reading + its * other.reading,
            mine * self.drawn + its * other.drawn,
            mine * self.sequences + its * other.sequences,
        )

    def shape(self, drawn: int | None, pages: float, own: float, shared: float) -> PassShape:
        """One of them, in whole rows: `drawn` of them want logits, all for None."""
        decoding = max(1, round(self.decoding)) if self.decoding else 0
        reading = max(1, round(self.reading)) if self.reading else 0
        context = self.context / self.decoding if decoding else 0.0
        head_rows = decoding + reading if drawn is None else drawn
        sequences = max(1, round(self.sequences))
        return PassShape(decoding, reading, context, head_rows, sequences, pages, max(1.0, own), shared)


def _whole_job(stretches: Iterable[Stretch], rows: JobRows) -> list[Passes]:
    """The passes that were walked, those that repeat as often as the job's tokens want."""
    walked = list(stretches)
    decoded, repeats = (sum(each.passes * each.decoding for each in walked if each.steady is s) for s in (False, True))
    wanted = rows.decoded
    if not decoded + repeats:  # nothing but first tokens
        decoded, repeats = (
            sum(each.passes * each.reading for each in walked if each.steady is s) for s in (False, True)
        )
        wanted = rows.read
    more = max(0.0, wanted - decoded) / repeats if repeats else 1.0
    found = list[Passes]()
    for each in walked:
        found += [Passes.of(piece, more if each.steady else 1.0) for piece in _pieces(each)]
    return found


def _pieces(stretch: Stretch) -> Iterator[Stretch]:
    """A stretch in pieces, in each of which the context is much the same."""
    grown = stretch.decoding * (stretch.passes - 1)
    pieces = min(PIECES, stretch.passes) if stretch.decoding and grown * 8 > stretch.context else 1
    edges = [stretch.passes * piece // pieces for piece in range(pieces + 1)]
    for start, stop in pairwise(edges):
        yield stretch._replace(passes=stop - start, context=stretch.context + start * stretch.decoding)


def condensed(passes: Iterable[Passes]) -> list[Passes]:
    """Few kinds of passes for many: those next to each other are joined, the most alike first."""
    order = dict[tuple[bool, bool], dict[tuple[int, ...], Passes]]()
    for each in passes:
        kinds = order.setdefault((each.decoding > 0, each.reading > 0), {})
        # Half a power of two apart in rows and an eighth in context they are told apart, if there is room for it.
        tokens, context, reading = each.place
        key = (round(2 * tokens), round(8 * context), round(2 * reading))
        kinds[key] = kinds[key].joined(each) if key in kinds else each
    found = list[Passes]()
    for kind, kinds in order.items():
        found += _joined([kinds[key] for key in sorted(kinds)], MOST[kind])
    return found


def _joined(passes: Sequence[Passes], most: int) -> list[Passes]:
    left = list(passes)
    losses = [one.apart(other) for one, other in pairwise(left)]
    while len(left) > most:
        place = losses.index(min(losses))
        left[place : place + 2] = [left[place].joined(left[place + 1])]
        losses[place : place + 1] = []
        for near in (place - 1, place):
            if 0 <= near < len(losses):
                losses[near] = left[near].apart(left[near + 1])
    return sorted(left, key=lambda each: -(each.decoding + each.reading))


def _shape(passes: Passes, rows: JobRows, workload: Workload) -> PassShape:
    drawn = None if workload.scored else round(passes.drawn)
    return passes.shape(drawn, rows.mean_pages, rows.mean_own, rows.mean_shared)
