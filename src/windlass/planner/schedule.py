"""The order of a pass, as a value: the runner executes it, and nothing else in Windlass knows the order.

Layer-major (the zig-zag of FlexGen, ICML 2023, section 4.1): a slice's weights arrive once a pass and serve every
micro-batch before they go. Lanes read the same steps: the disk lane takes the reads, the lane to a device the uploads,
each in order and as far ahead as its ring has free bytes; the compute lane takes the rest.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from windlass.facts.plan import Plan


class Op(Enum):
    """What a step does. READ belongs to the disk lane, UPLOAD to the lane to a device, the others to compute."""

    READ = "read"
    UPLOAD = "upload"
    LEND = "lend"
    COMPUTE = "compute"
    TAKE_BACK = "take back"


class Step(NamedTuple):
    """One thing one lane does. `part` indexes `plan.slices`; `start:stop` are the rows a COMPUTE works on."""

    op: Op
    part: int
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of one pass, and the same steps by slice for the stand-in that executes a slice."""

    steps: tuple[Step, ...]
    by_part: tuple[tuple[Step, ...], ...]

    def reads(self) -> tuple[Step, ...]:
        """The disk lane's share, in order."""
        return tuple(step for step in self.steps if step.op is Op.READ)


def micro_batches(plan: Plan, tokens: int) -> tuple[tuple[int, int], ...]:
    """Cuts a row of `tokens` into `(start, stop)` ranges of nearly equal length, none over the plan's limit.

    A row of no more tokens than the block has sequences is one of decode tokens, which have a limit of their own.
    Where the host attends to its own part of the cache there are at least two: the device computes one while the host
    works on the other.
    """
    limit = plan.micro_batch_tokens
    if plan.micro_batch_sequences is not None and tokens <= plan.block_size:
        limit = min(limit, plan.micro_batch_sequences)
    count = max(-(-tokens // limit), min(2, tokens) if plan.far_pages else 1)
    edges = [tokens * i // count for i in range(count + 1)]
    return tuple(zip(edges[:-1], edges[1:], strict=True))


def schedule(plan: Plan, tokens: int, head_rows: int) -> Schedule:
    """The steps of a pass over a row of `tokens` tokens of which `head_rows` rows want logits.

    The head sees all its rows in each of its parts; a layer sees the row in micro-batches.
    """
    by_part, row = [], micro_batches(plan, tokens)
    for index, part in enumerate(plan.slices):
        ranges = ((0, head_rows),) if part.kind == "head" else row
        computes = tuple(Step(Op.COMPUTE, index, start, stop) for start, stop in ranges)
        reads = (Step(Op.READ, index),) if part.disk_bytes else ()
        uploads = (Step(Op.UPLOAD, index),) if plan.host is not None and part.streamed_bytes else ()
        by_part.append((*reads, *uploads, Step(Op.LEND, index), *computes, Step(Op.TAKE_BACK, index)))
    return Schedule(tuple(step for steps in by_part for step in steps), tuple(by_part))
