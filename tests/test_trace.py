"""What the lanes tell while a model runs: each step of the schedule once, in order, no lane in two places at once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice, pairwise
from pathlib import Path

import pytest

from checkpoints import random_model, random_prompts, save
from placements import any_plan, in_small_pages, placement
from windlass.engine.llm import LLM
from windlass.engine.trace import WENT_ON, ComputeSpans, Trace
from windlass.facts.lane import LANES
from windlass.facts.placement import Placement
from windlass.facts.plan import Plan
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.time_span import TimeSpan
from windlass.memory.host_clock import timed_on_host
from windlass.planner.schedule import Op, schedule
from windlass.planner.timeline import step_name

LENGTHS, TOKENS = (5, 17, 11, 40), 6
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
EPSILON = 1e-6

Run = tuple[list[TimeSpan], Plan, RunReport]
Recorded = tuple[list[TimeSpan], Plan, RunReport, defaultdict[str, float]]


class Counting(Trace):
    """Counts too how long each lane was busy with what it told of since the first pass, none of it cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.told = defaultdict[str, float](float)

    def add(self, lane: str, name: str, start: float, end: float) -> None:
        super().add(lane, name, start, end)
        if self._zero is not None:
            self.told[lane] += end - start


def run(folder: Path, wanted: Placement | None, trace: Trace, row_on_host: bool = False, **settings: object) -> Run:
    """Four prompts, answered with everything recorded: on a simulated device where a placement is wanted."""
    prompts = random_prompts(*LENGTHS)
    if wanted is not None:
        pretended = {"device": "sim:rate=2GB/s,latency=20us", "gpu_memory": "200MiB"}
        settings = pretended | {"offload_dir": folder} | settings
    with LLM(folder, micro_batch_tokens=16, trace=trace, **settings) as llm:
        if wanted is not None:
            chosen = in_small_pages(llm, any_plan(llm, prompts, TOKENS), wanted, pass_tokens=200)
            llm.adopt(replace(chosen, row_on_host=row_on_host))
        llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], GREEDY)
        plan, report = llm.plan, llm.report
    return trace.spans(), plan, report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    save(random_model("llama"), made)
    return made


@pytest.fixture(
    scope="module",
    params=[
        "host alone",
        "device and host",
        "device, host and disk",
        "row on host",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def recorded(request: pytest.FixtureRequest, folder: Path) -> Recorded:
    halves, thirds = placement(0.4, 0.6, 0.5), placement(0.3, 0.3, 0.3, 0.3)
    places = {"device and host": halves, "device, host and disk": thirds, "row on host": halves, "cuda": halves}
    device = {"device": "cuda", "gpu_memory": "2GiB"} if request.param == "cuda" else {}
    trace = Counting()
    return *run(folder, places.get(request.param), trace, request.param == "row on host", **device), trace.told


def computed(spans: Sequence[TimeSpan]) -> list[str]:
    names = [span.name for span in spans if span.lane == "compute"]
    return [name for name in names if not name.endswith(WENT_ON) and name != "compute embedding"]


def test_every_step_of_the_schedule_is_computed_once_a_pass_and_in_its_order(recorded: Recorded) -> None:
    spans, plan, report, _ = recorded
    rows = [sum(LENGTHS), *[len(LENGTHS)] * (TOKENS - 1)]
    steps = [step for tokens in rows for step in schedule(plan, tokens, len(LENGTHS)).steps if step.op is Op.COMPUTE]
    assert computed(spans) == [step_name(plan, step) for step in steps]
    assert report.prefill_passes + report.decode_passes == len(rows)


def test_no_lane_does_two_things_at_once(recorded: Recorded) -> None:
    spans, _, _, _ = recorded
    for lane in LANES:
        own = [span for span in spans if span.lane == lane]
        assert all(before.end <= after.start + EPSILON for before, after in pairwise(own)), lane


def test_a_lane_is_busy_for_as_long_as_the_report_says(recorded: Recorded) -> None:
    """The report counts within passes only, calls all compute that is no wait, and counts work whole that one passes
    into: the trace cuts off what was under way when the first pass began and when the last call ended. On a busy
    machine a pretended link may carry more than that within a pass, of what it had been asked for before."""
    spans, plan, report, whole = recorded
    passes = report.prefill_seconds + report.decode_seconds
    for lane in LANES:
        own = [span for span in spans if span.lane == lane]
        told, longest = sum(span.seconds for span in own), max((span.seconds for span in own), default=0.0)
        counted = report.prefill_lanes[lane] + report.decode_lanes[lane]
        if lane == "compute":
            # A device goes on while the host waits, so there only the passes themselves are a limit.
            assert 0 < told <= (passes if plan.device.startswith("cuda") else counted) + EPSILON
        elif lane != "disk" or "keys and values" not in {span.name for span in spans}:
            assert max(told + 2 * longest, whole[lane]) >= counted - EPSILON * len(spans), lane
        assert told <= max(span.end for span in spans) + EPSILON, lane


def test_time_begins_with_the_first_pass(recorded: Recorded) -> None:
    spans, _, report, _ = recorded
    assert min(span.start for span in spans) >= 0
    assert min(span.start for span in spans if span.lane == "compute") < report.prefill_seconds


def test_slices_are_read_and_uploaded_in_the_order_of_the_schedule(folder: Path) -> None:
    spans, plan, _ = run(folder, placement(0.2, 0.3, 0.0), Trace())
    for verb, parts in (
        ("read", [part.name for part in plan.slices if part.disk_bytes]),
        ("upload", [part.name for part in plan.slices if part.streamed_bytes]),
    ):
        names = [f"{verb} {part}" for part in parts]
        # A slice comes in one copy from disk and one from the host.
        told = [name for name, before in pairwise_names(spans, names) if name != before]
        assert len(told) > 2 * len(names), "several passes"
        # Two slices in flight at once may begin within the same moment, so either of two may be the first.
        assert any(in_order(told, names, names.index(first)) for first in told[:2]), told


def in_order(told: Sequence[str], names: Sequence[str], first: int) -> bool:
    """Whether `told` goes round `names` from the one at `first`, but for neighbours that have changed places."""
    expected = list(islice(cycle([*names[first:], *names[:first]]), len(told)))
    return all(name in expected[max(0, at - 1) : at + 2] for at, name in enumerate(told))


def pairwise_names(spans: Sequence[TimeSpan], wanted: Sequence[str]) -> list[tuple[str, str]]:
    names = [span.name for span in spans if span.name in wanted]
    return list(zip(names, ["", *names], strict=False))


def test_an_expert_is_read_by_its_name_and_waited_for_outside_of_any_span(tmp_path: Path) -> None:
    save(random_model("mixtral"), tmp_path)
    spans, _, _ = run(tmp_path, placement(0.1, 0.2, 0.0), Trace())
    assert any(" expert " in span.name for span in spans if span.lane == "disk")
    assert any(span.name.endswith(WENT_ON) for span in spans if span.lane == "compute")


def test_the_host_says_what_it_attends_to(folder: Path) -> None:
    spans, _, _ = run(folder, placement(0.5, 0.5, 1.0), Trace())
    told = {span.name for span in spans if span.lane == "host"}
    assert {f"attend layer {layer}" for layer in range(3)} <= told
    assert {f"store layer {layer}" for layer in range(3)} <= told
    assert any(span.name.endswith(WENT_ON) for span in spans), "a micro-batch that waits for the host is paused"


def test_a_full_trace_stops_and_says_what_it_left_out(folder: Path) -> None:
    whole, full = Trace(), Trace(limit=10)
    spans, _, _ = run(folder, None, full)
    run(folder, None, whole)
    assert len(spans) <= 10 and full.left_out > 0 == whole.left_out


def test_without_a_trace_nobody_is_told(folder: Path) -> None:
    with LLM(folder, device="sim", gpu_memory="200MiB") as llm:
        llm.generate([{"prompt_token_ids": [1, 2, 3]}], GREEDY)
        assert llm._engine is not None and llm._engine.runner.spans is None
        assert llm._engine.reader._on_span is None and llm._engine.host_lane._on_span is None


def test_the_tokens_are_the_same_with_a_trace(folder: Path) -> None:
    prompts = [{"prompt_token_ids": prompt} for prompt in random_prompts(*LENGTHS)]
    answers = []
    for trace in (None, Trace()):
        with LLM(folder, trace=trace) as llm:
            answers.append([output.outputs[0].token_ids for output in llm.generate(prompts, GREEDY)])
    assert answers[0] == answers[1]


def test_a_wait_parts_a_span_in_two_and_counts_as_neither() -> None:
    trace = Trace()
    trace.begin(0.0)
    spans = ComputeSpans(lambda name: timed_on_host(trace.add, name))
    with spans.paused():
        pass
    with spans.span("compute layer 0"), spans.paused():
        told_before = len(trace._kinds)
    trace.end(float("inf"))
    assert told_before == 1
    assert [span.name for span in trace.spans()] == ["compute layer 0", f"compute layer 0{WENT_ON}"]


def test_a_trace_that_saw_no_pass_shows_nothing() -> None:
    trace = Trace()
    trace.add("disk", "read layer 0", 0.0, 1.0)
    assert trace.spans() == []


def test_what_lies_before_the_first_pass_and_behind_the_last_call_is_cut_off() -> None:
    trace = Trace()
    for start in (0.0, 4.0, 6.0, 9.5, 12.0):
        trace.add("disk", f"read {start}", start, start + 2.0)
    trace.begin(5.0)
    trace.begin(8.0)
    trace.end(10.0)
    assert trace.spans() == [
        TimeSpan("disk", "read 4.0", 0.0, 1.0),
        TimeSpan("disk", "read 6.0", 1.0, 2.0),
        TimeSpan("disk", "read 9.5", 4.5, 0.5),
    ]
