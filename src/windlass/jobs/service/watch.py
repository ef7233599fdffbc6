"""Makes the parts of a view of what a service knows."""

from collections.abc import Sequence

from windlass.engine.block_state import BlockState
from windlass.engine.lanes import added, bound_by
from windlass.engine.last_pass import PassSpans
from windlass.facts.lane import LANES
from windlass.facts.plan import Plan
from windlass.jobs.service.desk import Desk
from windlass.jobs.service.view import LaneView, PassView, QueueView, SpeedView, WaitView
from windlass.jobs.service.waits import percentiles


def pass_view(told: PassSpans | None) -> PassView | None:
    """The lanes that did anything in a pass."""
    if told is None:
        return None
    lanes = (
        LaneView(lane, tuple((each.start, each.end, each.name) for each in told.spans if each.lane == lane))
        for lane in LANES
    )
    return PassView(told.number, told.seconds, tuple(lane for lane in lanes if lane.spans))


def queue_view(desk: Desk, plan: Plan | None, state: BlockState | None) -> QueueView:
    """Who runs and who waits."""
    with desk.lock:
        waiting = desk.waiting()
    return QueueView(
        running=state.running if state else 0,
        places=plan.block_size if plan else 0,
        waiting=waiting,
        capacity=desk.max_queue,
        pages_used=state.used_pages if state else 0,
        pages=plan.num_pages if plan else 0,
        reserved_pages=state.reserved_pages if state else 0,
        kept_pages=state.kept_pages if state else 0,
    )


def speed_view(desk: Desk, passes: Sequence[BlockState], forecast: float | None) -> SpeedView:
    """Over the last passes, of which the first state is where counting begins."""
    rate = 0.0
    if len(passes) > 1 and passes[-1].seconds > passes[0].seconds:
        tokens = passes[-1].generated_tokens - passes[0].generated_tokens
        rate = tokens / (passes[-1].seconds - passes[0].seconds)
    return SpeedView(rate, forecast, desk.prompt_tokens, desk.generated_tokens)


def wait_view(desk: Desk) -> WaitView:
    """Percentiles of the latest waits."""
    with desk.lock:
        place, first = list(desk.waits.place), list(desk.waits.first_token)
        between = list(desk.waits.between_tokens)
    return WaitView(percentiles(place), percentiles(first), percentiles(between))


def what_binds(state: str, block: BlockState | None, passes: Sequence[BlockState]) -> str:
    """What the last passes were bound by, in the words of a run's report; or why there is none in flight."""
    if state == "failed":
        return "nothing: the service has failed"
    if state != "ready":
        return f"nothing: the model is {state}" if state == "loading" else "nothing: the service is closed"
    if block is None or not block.running:
        return "nothing: no question is being answered"
    if len(passes) < 2:
        return "not known yet: the first pass is under way"
    busy = added(dict(passes[0].lanes), dict(passes[-1].lanes))
    return bound_by(busy, passes[-1].seconds - passes[0].seconds)
