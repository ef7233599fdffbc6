"""The passes that a call has made, as shapes that can be priced: a promise is held against just these."""

from collections.abc import Iterator

from windlass.facts.plan import Plan
from windlass.facts.work_done import PassesDone, WorkDone
from windlass.planner.job_passes import Passes, PassShape, condensed


def done_passes(plan: Plan, done: WorkDone) -> Iterator[tuple[PassShape, float]]:
    """Each shape with how many passes it stands for."""
    own = done.mean_own
    pages = -(-(done.prompt_len + max(1, done.gen_len) - 1) // plan.page_tokens)
    for each in condensed(_passes(plan, done, passes) for passes in done.passes if passes.passes):
        drawn = None if done.scored else round(each.drawn)
        yield each.shape(drawn, float(pages), own, max(0.0, done.prompt_len - own)), each.passes


def _passes(plan: Plan, done: WorkDone, each: PassesDone) -> Passes:
    """Answers were half of their length on average, and prompts ended evenly over what was read."""
    read, drawn = each.read / each.passes, each.drawn / each.passes
    context = drawn * (done.prompt_len + done.gen_len / 2)
    sequences = max(drawn, min(plan.block_size, done.sequences))
    return Passes(each.passes, drawn, context, read, drawn + read / max(1.0, done.mean_own), sequences)
