"""Timelines: what each lane does when, forecast and measured, as one value that trace viewers open and plots draw.

The form is that of Chrome's trace events (the "Trace Event Format" document of the Chromium project), which Perfetto
reads: complete events in microseconds, a process each for "forecast" and "measured", in each a thread a lane.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from windlass.errors import UsageError
from windlass.facts.lane import LANE_NAMES, LANES
from windlass.facts.plan import Plan
from windlass.facts.time_span import TimeSpan
from windlass.planner.schedule import Op, Step

FORECAST, MEASURED = "forecast", "measured"
# Forecast above measured, in every viewer; a file of either alone has the same numbers.
_PROCESSES = {FORECAST: 1, MEASURED: 2}
# Fewer passes than this have none in the middle that is like its neighbours.
_PASSES_TO_CHOOSE_FROM = 4
# What groups of weights are called.
_SLICE = re.compile(r"\b(layer \d+( expert \d+)?|head( part \d+)?|embedding)\b")


def step_name(plan: Plan, step: Step) -> str:
    """What a step is called on a timeline: `read layer 3`, `compute layer 3 rows 0:16`."""
    name = f"{step.op.value} {plan.slices[step.part].name}"
    return f"{name} rows {step.start}:{step.stop}" if step.op is Op.COMPUTE else name


def in_turn(spans: Iterable[TimeSpan]) -> list[TimeSpan]:
    """The spans of one lane without overlaps, by start; together they cover what they covered before.

    Where one begins before the one before it has ended (reads in flight together), that one ends there and what was
    left of its time goes to the later one.
    """
    result: list[TimeSpan] = []
    reached = -math.inf
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        reached = max(reached, span.end)
        if result and result[-1].end > span.start:
            before = result.pop()
            if span.start > before.start:
                result.append(TimeSpan(before.lane, before.name, before.start, span.start - before.start))
        if reached > span.start:
            result.append(TimeSpan(span.lane, span.name, span.start, reached - span.start))
    return result


def chrome_trace(named: Mapping[str, Sequence[TimeSpan]]) -> dict[str, Any]:
    """The trace of `named` processes ("forecast", "measured"), ready for json."""
    events: list[dict[str, Any]] = []
    for process, spans in named.items():
        pid = _PROCESSES.get(process, len(_PROCESSES) + 1)
        events += _names(process, pid)
        events += [_event(span, pid) for span in sorted(spans, key=lambda each: (each.start, LANES.index(each.lane)))]
    return {"displayTimeUnit": "ms", "traceEvents": events}


def read_chrome_trace(document: object, name: str) -> dict[str, list[TimeSpan]]:
    """What `chrome_trace` made, read back. `name` is that of the file, for the message. Raises UsageError."""
    try:
        events = document["traceEvents"] if isinstance(document, dict) else []
        processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
        found: dict[str, list[TimeSpan]] = {process: [] for process in processes.values()}
        for event in events:
            if event["ph"] == "X":
                lane = LANES[event["tid"] - 1]
                span = TimeSpan(lane, str(event["name"]), event["ts"] / 1e6, event["dur"] / 1e6)
                found[processes[event["pid"]]].append(span)
        if not found.keys() & _PROCESSES.keys():
            raise KeyError(FORECAST)
    except (IndexError, KeyError, TypeError) as error:
        raise UsageError(
            f"{name} holds something else than a timeline of windlass; name another file, or remove it"
        ) from error
    return found


def passes(spans: Sequence[TimeSpan]) -> list[tuple[float, float]]:
    """`(start, end)` of each pass: one begins whenever the compute lane comes to the slice that it began with."""
    computing = sorted((each for each in spans if each.lane == "compute"), key=lambda each: each.start)
    if not computing:
        return []
    slices = [slice_name(each) for each in computing]
    starts = [
        each.start
        for each, part, before in zip(computing, slices, ["", *slices], strict=False)
        if part == slices[0] and before != part
    ]
    return list(zip(starts, [*starts[1:], max(each.end for each in computing)], strict=True))


def steady_pass(spans: Sequence[TimeSpan]) -> tuple[float, float] | None:
    """A pass from the middle of those that came, or None where there are too few: neither the first nor the last."""
    all_passes = passes(spans)
    return all_passes[len(all_passes) // 2] if len(all_passes) >= _PASSES_TO_CHOOSE_FROM else None


def slice_name(span: TimeSpan) -> str:
    """`compute layer 3 rows 0:16` -> `layer 3`; the whole name where there is no slice in it."""
    found = _SLICE.search(span.name)
    return found[0] if found else span.name


def within(spans: Iterable[TimeSpan], start: float, end: float) -> list[TimeSpan]:
    """What of the spans lies between `start` and `end`, counted from `start`."""
    cut = (
        TimeSpan(each.lane, each.name, max(each.start, start) - start, min(each.end, end) - max(each.start, start))
        for each in spans
    )
    return [each for each in cut if each.seconds > 0]


def _names(process: str, pid: int) -> list[dict[str, Any]]:
    """Metadata that names a process and its lanes and keeps them in order."""
    found: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": process}},
        {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}},
    ]
    for tid, lane in enumerate(LANES, start=1):
        found += [
            {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": LANE_NAMES[lane]}},
            {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}},
        ]
    return found


def _event(span: TimeSpan, pid: int) -> dict[str, Any]:
    """In whole nanoseconds, so that spans that abut still do."""
    start, end = round(span.start * 1e9), round(span.end * 1e9)
    return {
        "ph": "X",
        "name": span.name,
        "cat": span.lane,
        "ts": start / 1e3,
        "dur": (end - start) / 1e3,
        "pid": pid,
        "tid": LANES.index(span.lane) + 1,
    }
