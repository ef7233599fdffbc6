"""A timeline is a trace that viewers open, holds forecast and measured side by side, and loses no time of a lane."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import StorageError, UsageError
from windlass.facts.lane import LANE_NAMES, LANES
from windlass.facts.plan import MemoryBill, Plan, Slice
from windlass.facts.time_span import TimeSpan
from windlass.jobs.timeline_file import add_to_timeline, check_timeline, read_timeline
from windlass.planner.schedule import Op, Step
from windlass.planner.timeline import (
    chrome_trace,
    in_turn,
    passes,
    read_chrome_trace,
    slice_name,
    steady_pass,
    step_name,
    within,
)

SPANS = st.lists(
    st.builds(
        TimeSpan,
        lane=st.just("disk"),
        name=st.sampled_from("abc"),
        start=st.integers(0, 50).map(float),
        seconds=st.integers(0, 20).map(float),
    ),
    max_size=20,
)
ANY_SPANS = st.lists(
    st.builds(
        TimeSpan,
        lane=st.sampled_from(LANES),
        name=st.text(max_size=8),
        start=st.integers(0, 10**12).map(lambda nanoseconds: nanoseconds / 1e9),
        seconds=st.integers(0, 10**10).map(lambda nanoseconds: nanoseconds / 1e9),
    ),
    max_size=8,
)


def covered(spans: list[TimeSpan]) -> set[int]:
    """The whole seconds that the spans cover."""
    return {second for span in spans for second in range(int(span.start), int(span.end))}


@given(spans=SPANS)
def test_in_turn_overlaps_nowhere_and_covers_what_was_covered(spans: list[TimeSpan]) -> None:
    found = in_turn(spans)
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert covered(found) == covered(spans)
    assert all(span.seconds > 0 for span in found)


def test_in_turn_keeps_a_short_read_that_begins_within_a_long_one() -> None:
    found = in_turn([TimeSpan("disk", "long", 0.0, 10.0), TimeSpan("disk", "short", 4.0, 2.0)])
    assert found == [TimeSpan("disk", "long", 0.0, 4.0), TimeSpan("disk", "short", 4.0, 6.0)]


@given(forecast=ANY_SPANS, measured=ANY_SPANS)
def test_a_trace_holds_to_the_form_of_chromes_trace_events(forecast: list[TimeSpan], measured: list[TimeSpan]) -> None:
    """As the "Trace Event Format" document has it: complete events (X) and metadata (M), times in microseconds."""
    trace = json.loads(json.dumps(chrome_trace({"forecast": forecast, "measured": measured})))
    assert trace["displayTimeUnit"] in ("ms", "ns")
    for event in trace["traceEvents"]:
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and isinstance(event["name"], str)
        if event["ph"] == "X":
            assert isinstance(event["cat"], str) and event["ts"] >= 0 and event["dur"] >= 0
        else:
            key = {"process_name": "name", "thread_name": "name"}.get(event["name"], "sort_index")
            assert event["ph"] == "M" and isinstance(event["args"][key], str if key == "name" else int)
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(complete) == len(forecast) + len(measured)


@given(forecast=ANY_SPANS, measured=ANY_SPANS)
def test_what_is_written_is_read_back(forecast: list[TimeSpan], measured: list[TimeSpan]) -> None:
    document = json.loads(json.dumps(chrome_trace({"forecast": forecast, "measured": measured})))
    found = read_chrome_trace(document, "t.json")
    for name, given_ in (("forecast", forecast), ("measured", measured)):
        rounded = sorted((s.lane, s.name, round(s.start, 6), round(s.seconds, 6)) for s in found[name])
        assert rounded == sorted((s.lane, s.name, round(s.start, 6), round(s.seconds, 6)) for s in given_)


def test_both_have_the_same_lanes_in_the_same_order_in_processes_of_their_own() -> None:
    events = chrome_trace({"measured": [], "forecast": []})["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    lanes = list(LANE_NAMES.values())
    assert lanes == ["disk", "host-to-device", "compute", "device-to-host", "CPU attention"]
    processes = {e["args"]["name"]: e["pid"] for e in events if e["name"] == "process_name"}
    assert processes["forecast"] < processes["measured"], "the forecast above"
    for pid in processes.values():
        assert [names[pid, tid] for tid in range(1, len(lanes) + 1)] == lanes


def test_spans_that_abut_still_do_in_nanoseconds() -> None:
    third = 1 / 3
    spans = [TimeSpan("disk", str(place), place * third, third) for place in range(100)]
    events = [e for e in chrome_trace({"measured": spans})["traceEvents"] if e["ph"] == "X"]
    assert all(round((a["ts"] + a["dur"] - b["ts"]) * 1e3) == 0 for a, b in pairwise(events))


def run_of(times: int) -> list[TimeSpan]:
    """Passes of 2 s over two layers and a head, two micro-batches each."""
    work = ["layer 0 rows 0:4", "layer 0 rows 4:8", "layer 1 rows 0:4", "layer 1 rows 4:8 (went on)", "head rows 0:8"]
    return [
        TimeSpan("compute", f"compute {name}", 2.0 * number + 0.4 * place, 0.3)
        for number in range(times)
        for place, name in enumerate(work)
    ]


def test_a_pass_begins_when_the_first_slice_comes_again() -> None:
    assert passes(run_of(3)) == [(0.0, 2.0), (2.0, 4.0), (4.0, pytest.approx(5.9))]
    assert passes([TimeSpan("disk", "read layer 0", 0.0, 1.0)]) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("compute layer 12 rows 0:16 (went on)", "layer 12"),
        ("layer 3", "layer 3"),
        ("read layer 3 expert 17", "layer 3 expert 17"),
        ("compute head part 2 rows 0:4", "head part 2"),
        ("read embedding rows", "embedding"),
        ("draw tokens", "draw tokens"),
    ],
)
def test_the_slice_of_a_span_is_in_its_name(name: str, expected: str) -> None:
    assert slice_name(TimeSpan("compute", name, 0.0, 1.0)) == expected


def test_a_steady_pass_is_neither_the_first_nor_the_last() -> None:
    assert steady_pass(run_of(3)) is None
    assert steady_pass(run_of(9)) == (8.0, 10.0)


def test_a_part_of_a_timeline_counts_from_its_own_start() -> None:
    spans = [TimeSpan("disk", "a", 1.0, 2.0), TimeSpan("disk", "b", 3.0, 4.0), TimeSpan("disk", "c", 9.0, 1.0)]
    assert within(spans, 2.0, 5.0) == [TimeSpan("disk", "a", 0.0, 1.0), TimeSpan("disk", "b", 1.0, 2.0)]


def test_steps_are_named_by_what_is_done_and_to_which_rows() -> None:
    bill = MemoryBill(1, 0, 0, 0, 0, 0, 0, 0, 0)
    slices = (Slice("layer 0", "layer", 0, 1, 1, 1, 1), Slice("head", "head", 0, 0, 0, 0, 0))
    plan = Plan("m", "cpu", "float32", 1, 1, 1, 64, 1, slices, frozenset(), bill)
    steps = (Step(Op.READ, 0), Step(Op.UPLOAD, 0), Step(Op.COMPUTE, 0, 2, 5), Step(Op.COMPUTE, 1, 0, 3))
    names = [step_name(plan, step) for step in steps]
    assert names == ["read layer 0", "upload layer 0", "compute layer 0 rows 2:5", "compute head rows 0:3"]


class TestFile:
    def test_a_run_stands_beside_the_forecast_that_was_there(self, tmp_path: Path) -> None:
        file, forecast, measured = tmp_path / "t.json", run_of(1), run_of(2)
        add_to_timeline(file, "forecast", forecast)
        add_to_timeline(file, "measured", run_of(5))
        assert add_to_timeline(file, "measured", measured).keys() == {"forecast", "measured"}
        found = read_timeline(file)
        assert {name: len(spans) for name, spans in found.items()} == {"forecast": 5, "measured": 10}
        assert [path.name for path in tmp_path.iterdir()] == ["t.json"], "nothing else is left"

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"traceEvents": [{}]}', '{"traceEvents": []}', '"text"'])
    def test_a_file_of_something_else_is_not_overwritten(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "thesis.json"
        file.write_text(content)
        for write in (lambda: check_timeline(file), lambda: add_to_timeline(file, "measured", run_of(1))):
            with pytest.raises(UsageError, match=r"thesis.json holds .*name another file, or remove it"):
                write()
        assert file.read_text() == content

    def test_a_folder_that_is_missing_is_refused_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="there is no folder .*make it, or name another file"):
            check_timeline(tmp_path / "none" / "t.json")

    def test_a_place_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="could not be written to"):
            add_to_timeline(tmp_path / "none" / "t.json", "measured", run_of(1))
