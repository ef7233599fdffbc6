"""A forecast is the schedule, walked: nothing overtakes, no ring overflows, no lane does two things, and more is never
worse. What it says is held against the plainest arithmetic there is: bytes over rate, flops over rate."""

import math
from bisect import bisect_right
from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planned_models import beside_host, decoder, demands, laptop, workstation
from windlass.errors import BudgetError, UsageError
from windlass.facts.lane import LANES
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.rate_curve import RateCurve
from windlass.facts.time_span import TimeSpan
from windlass.facts.workload import Workload
from windlass.planner.cost import Run, forecast, timeline
from windlass.planner.job_passes import job_passes
from windlass.planner.pipeline import Pipeline
from windlass.planner.search import search
from windlass.planner.timeline import chrome_trace, passes, slice_name
from windlass.units import GIB, MIB

WORK = Workload(num_prompts=48, prompt_len=100, gen_len=20)


@cache
def model(experts: int = 0) -> ModelFacts:
    return decoder(layers=6, hidden=2048, heads=16, kv_heads=8, inner=512 if experts else 4096, experts=experts)


@st.composite
def planned(draw: st.DrawFn) -> tuple[ModelFacts, Plan, Machine]:
    """A model, a plan of it that streams more or less, and a machine that the plan is for."""
    facts = model(draw(st.sampled_from((0, 0, 0, 8))))
    block = draw(st.sampled_from((1, 3, 16, 48)))
    if draw(st.booleans()):
        asked, machine = demands(draw(st.integers(320, 700)) * MIB, block, draw(st.sampled_from((32, 512)))), laptop()
    else:
        device, host = draw(st.integers(300, 700)), draw(st.integers(200, 900))
        asked, machine = (
            beside_host(device * MIB, host * MIB, block, draw(st.sampled_from((0, 4 * GIB)))),
            workstation(),
        )
    try:
        plan = search(facts, WORK, asked)
    except BudgetError:
        assume(False)
    width = draw(st.sampled_from((None, 1, 7)))
    return facts, replace(plan, micro_batch_sequences=width), machine


def walked(facts: ModelFacts, plan: Plan, machine: Machine, record: bool = True) -> Pipeline:
    """Two blocks' worth of prompts and a few decode passes."""
    run = Run(facts, plan, machine, WORK)
    pipeline = Pipeline(plan, run.pace, record)
    for shape, _ in job_passes(plan, WORK).shapes:
        pipeline.run_pass(run.work(shape))
    return pipeline


def spans_of(spans: list[TimeSpan], lane: str, what: str = "") -> list[TimeSpan]:
    return [span for span in spans if span.lane == lane and span.name.startswith(what)]


@given(planned())
def test_a_lane_does_one_thing_at_a_time(given_: tuple[ModelFacts, Plan, Machine]) -> None:
    spans = walked(*given_).spans
    for lane in LANES:
        ordered = sorted(spans_of(spans, lane), key=lambda span: span.start)
        assert all(later.start >= earlier.end - 1e-12 for earlier, later in pairwise(ordered))


@given(planned())
def test_no_ring_ever_holds_more_than_its_size(given_: tuple[ModelFacts, Plan, Machine]) -> None:
    _, plan, _ = given_
    loans = walked(*given_).loans
    for ring, size in (("disk", plan.host_bill.ring), ("device", plan.memory.ring)):
        changes = []
        for name, loan in loans:
            if name == ring:
                changes.append((loan.ready, 1, loan.nbytes))
                changes.append((math.inf if loan.returned is None else loan.returned, 0, -loan.nbytes))
        held = 0
        for _, _, change in sorted(changes):  # bytes that come back at a moment may be lent at that moment
            held += change
            assert held <= size


@given(planned())
def test_a_slice_is_computed_after_it_has_come_and_before_its_bytes_are_given_back(
    given_: tuple[ModelFacts, Plan, Machine],
) -> None:
    _, plan, _ = given_
    pipeline = walked(*given_)
    ring, lane, verb = ("device", "upload", "upload") if plan.host is not None else ("disk", "disk", "read")
    begun = [span.start for span in spans_of(pipeline.spans, "compute", "embedding")]
    loans = [loan for name, loan in pipeline.loans if name == ring]
    names = {f"{verb} {part.name}": part.name for part in plan.slices}
    came = sorted((s for s in spans_of(pipeline.spans, lane) if s.name in names), key=lambda span: span.start)
    arrivals = defaultdict(list)
    for span, loan in zip(came, loans, strict=True):
        arrivals[names[span.name]].append((span.end, math.inf if loan.returned is None else loan.returned))
    for span in spans_of(pipeline.spans, "compute"):
        if slice_name(span) in arrivals:
            arrived, returned = arrivals[slice_name(span)][bisect_right(begun, span.start) - 1]
            assert arrived <= span.start + 1e-12 and span.end <= returned + 1e-12


@given(planned())
def test_nothing_is_uploaded_before_it_has_been_read(given_: tuple[ModelFacts, Plan, Machine]) -> None:
    _, plan, _ = given_
    pipeline = walked(*given_)
    assume(plan.host is not None)
    for part in plan.slices:
        reads = [span for span in spans_of(pipeline.spans, "disk") if span.name == f"read {part.name}"]
        ups = [span for span in spans_of(pipeline.spans, "upload") if span.name == f"upload {part.name}"]
        assert all(read.end <= up.start + 1e-12 for read, up in zip(reads, ups, strict=False))


@given(planned())
def test_what_is_walked_in_one_go_takes_as_long_as_one_by_one(given_: tuple[ModelFacts, Plan, Machine]) -> None:
    one_by_one, folded = walked(*given_).compute, walked(*given_, record=False).compute
    assert folded.free == pytest.approx(one_by_one.free, rel=0.02)
    assert folded.busy == pytest.approx(one_by_one.busy, rel=1e-6)


def faster(machine: Machine, what: str, factor: float) -> Machine:
    """The machine with one of its rates `factor` times higher."""

    def curves(of: object) -> dict[str, RateCurve]:
        assert isinstance(of, dict)
        return {name: curve.scaled(factor) for name, curve in of.items()}

    if what == "disk":
        return replace(
            machine, disk=replace(machine.disk, rate=machine.disk.rate * factor), disk_write=machine.disk_write * factor
        )
    if what in ("upload", "download"):
        link = machine.link
        return machine if link is None else replace(machine, link=replace(link, **{what: getattr(link, what) * factor}))
    place = "device" if what.startswith("device") and machine.device is not None else "host"
    rates = getattr(machine, place)
    if what.endswith("memory_rate"):
        return replace(machine, **{place: replace(rates, memory_rate=rates.memory_rate * factor)})
    if what.endswith("step"):
        return replace(machine, **{place: replace(rates, step_seconds=rates.step_seconds / factor)})
    field = what.partition(" ")[2]
    return replace(machine, **{place: replace(rates, **{field: curves(getattr(rates, field))})})


FIELDS = ("matmul", "prefill_attention", "decode_attention", "memory_rate", "step")
RATES = ("disk", "upload", "download", *(f"{place} {field}" for place in ("host", "device") for field in FIELDS))


@given(planned(), st.sampled_from(RATES), st.floats(1.01, 20))
def test_a_faster_machine_is_never_forecast_to_be_slower(
    given_: tuple[ModelFacts, Plan, Machine], what: str, factor: float
) -> None:
    facts, plan, machine = given_
    slow, fast = walked(facts, plan, machine, record=False), walked(facts, plan, faster(machine, what, factor), False)
    assert fast.compute.free <= slow.compute.free * (1 + 1e-9)


@given(planned(), st.sampled_from(RATES), st.floats(1.01, 20))
def test_nor_is_the_job(given_: tuple[ModelFacts, Plan, Machine], what: str, factor: float) -> None:
    """What a few passes stand for is taken from a difference of two times, so here there is a little play."""
    facts, plan, machine = given_
    before = forecast(facts, plan, machine, WORK).seconds
    assert forecast(facts, plan, faster(machine, what, factor), WORK).seconds <= before * 1.01


@given(planned())
def test_no_phase_is_shorter_than_any_lane_works_in_it(given_: tuple[ModelFacts, Plan, Machine]) -> None:
    facts, plan, machine = given_
    told = forecast(facts, plan, machine, WORK)
    # The lanes read ahead over the end of a phase, so they are held against the whole job.
    job = told.prefill.seconds + told.decode.seconds
    for lane in LANES:
        assert told.prefill.lanes[lane] + told.decode.lanes[lane] <= job * 1.01


def streaming(budget: int = 400 * MIB, block: int = 16) -> Plan:
    plan = search(model(), WORK, demands(budget, block))
    assert plan.disk_bytes > 0
    return plan


def test_a_slow_disk_takes_bytes_over_rate_and_hardly_more() -> None:
    work = replace(WORK, num_prompts=16, gen_len=200)
    plan = search(model(), work, demands(500 * MIB, 16))
    told = forecast(model(), plan, laptop(disk=50e6), work)
    least = plan.disk_bytes / 50e6
    assert least <= told.decode.seconds_per_pass <= least * 1.03
    assert told.decode.bound_by == "disk"


def test_a_slow_computer_takes_flops_over_rate_and_hardly_more() -> None:
    plan = streaming()
    machine = laptop(disk=100e9, memory_rate=1e12, flops=1e9)
    work = replace(WORK, num_prompts=16, prompt_len=512, gen_len=2)
    told = forecast(model(), search(model(), work, demands(600 * MIB, 16)), machine, work)
    parameters = sum(group.nbytes for group in model().groups if group.kind == "layer") / 2
    products = 2 * parameters * 16 * 512 / 1e9
    pairs = 16 * 512 * 513 / 2 * 4 * 2048 * model().num_layers
    least = products + pairs / (1e9 / 2)
    assert plan.slices and least <= told.prefill.seconds <= least * 1.1
    assert told.prefill.bound_by == "compute"


def test_reads_overlap_the_computation() -> None:
    """Where disk and computer are as fast as each other, a pass takes little more than either alone."""
    plan = streaming()
    alone = forecast(model(), plan, laptop(disk=1e15), WORK).decode
    even = plan.disk_bytes / alone.seconds_per_pass
    both = forecast(model(), plan, laptop(disk=even), WORK).decode
    assert alone.seconds_per_pass <= both.seconds_per_pass <= 1.35 * alone.seconds_per_pass


def test_a_larger_ring_lets_the_disk_run_further_ahead() -> None:
    plan = streaming()
    even = plan.disk_bytes / forecast(model(), plan, laptop(disk=1e15), WORK).decode.seconds_per_pass
    wide = replace(plan, memory=replace(plan.memory, ring=10 * plan.memory.ring))
    near, far = (forecast(model(), each, laptop(disk=even), WORK).decode.seconds_per_pass for each in (plan, wide))
    assert plan.disk_bytes / even <= far <= near
    assert far <= 1.05 * plan.disk_bytes / even


def test_twice_the_block_halves_what_a_token_pays_for_the_weights() -> None:
    few, many = (
        forecast(model(), search(model(), WORK, demands(400 * MIB, block)), laptop(disk=100e6), WORK).decode.rate
        for block in (8, 16)
    )
    assert 1.7 <= many / few <= 2.1


def test_experts_nobody_wants_are_not_read() -> None:
    facts = model(experts=8)
    plan = search(facts, WORK, demands(250 * MIB, 1))
    assert plan.host_bill.expert_ring > 0
    expert = next(group.nbytes for group in facts.groups if group.kind == "expert")
    # One row wants two of eight experts in each layer, forty want all.
    for block, wanted in ((1, 2), (40, 8)):
        pages = block * plan.num_pages
        of_block = replace(plan, block_size=block, num_pages=pages, pass_tokens=block * WORK.prompt_len)
        told = forecast(facts, of_block, laptop(disk=100e6), replace(WORK, num_prompts=block)).decode
        expected = plan.disk_bytes + facts.num_layers * wanted * expert
        assert told.lanes["disk"] / told.passes * 100e6 == pytest.approx(expected, rel=0.02)


def test_fewer_sequences_run_at_once_where_the_pages_are_few() -> None:
    plan = streaming()
    halved = replace(plan, num_pages=plan.num_pages // 2)
    whole, half = (forecast(model(), each, laptop(disk=50e6), WORK).decode for each in (plan, halved))
    assert half.passes == 2 * whole.passes


def test_a_timeline_shows_the_lanes_side_by_side_from_the_first_read_on() -> None:
    spans = timeline(model(), streaming(), laptop(), WORK, decode_passes=3)
    assert spans == sorted(spans, key=lambda span: span.start)
    assert {span.lane for span in spans} == {"disk", "compute"}
    assert spans[0].start == 0.0
    layer = [span for span in spans if span.name.startswith("compute layer 0 rows ")]
    assert len(layer) == -(-16 * 100 // 512) + 3
    assert len(passes(spans)) == 1 + 3
    assert chrome_trace({"forecast": spans})["traceEvents"]


def test_answers_that_end_early_are_expected_to_take_their_mean() -> None:
    work = Workload(64, 10, 200, mean_gen_len=50.0)
    drawn = sum(work.still_running(step) for step in range(200))
    assert drawn == pytest.approx(50, rel=0.05)
    plan, whole = streaming(), replace(work, mean_gen_len=None)
    early, late = (forecast(model(), plan, laptop(), each) for each in (work, whole))
    assert early.decode.tokens < late.decode.tokens and early.decode.seconds < late.decode.seconds


def test_prompts_of_several_lengths_count_as_they_are() -> None:
    plan, ragged = streaming(), Workload(16, 1000, 20, prompt_lens=(1000,) + 15 * (40,))
    full = replace(ragged, prompt_lens=())
    assert forecast(model(), plan, laptop(), ragged).prefill.tokens == 1600
    assert forecast(model(), plan, laptop(), ragged).seconds < forecast(model(), plan, laptop(), full).seconds


def test_what_runs_have_shown_corrects_a_lane() -> None:
    plan = streaming()
    told, corrected = (
        forecast(model(), plan, replace(laptop(disk=50e6), corrections=factors), WORK).decode.seconds
        for factors in ({}, {"disk": 0.5})
    )
    assert corrected == pytest.approx(2 * told, rel=0.02)


def test_a_machine_that_lacks_a_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="gives no rate for it; .* --disk-rate"):
        forecast(model(), streaming(), laptop(disk=0.0), WORK)
    plan = search(model(), WORK, beside_host(400 * MIB, 400 * MIB, 4))
    with pytest.raises(UsageError, match="knows of no device"):
        forecast(model(), plan, laptop(), WORK)
