"""Corrects a machine's profile by what runs on it have shown, so that the next forecast is better.

The lane that bounds a phase shows its true rate: how long it was busy, beside how long it was to be. The measured rates
stay as they are; a correction is a factor beside them, made anew from the runs that are kept, so that it cannot drift.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from windlass.facts.kept_run import KeptRun
from windlass.facts.lane import LANES
from windlass.facts.machine import Machine

# A correction beyond these says that the machine should be measured anew.
LEAST, MOST = 0.5, 2.0
# Runs that count for a lane: few enough to forget, enough for a median to shrug off a busy afternoon.
RUNS = 8
# A phase shorter than this (seconds) measures overheads.
SHORTEST = 1.0
# With each run that agrees, half of what is left to correct is corrected.
DAMPING = 0.5


def corrected(machine: Machine, kept: Sequence[KeptRun]) -> Machine:
    """`machine` with corrections from `kept` (oldest first), which replace what it has.

    Runs by another profile are left out: another machine's, and this one's before it was measured anew.
    """
    ours = [run for run in kept if (run.machine, run.machine_measured) == (machine.name, machine.measured)]
    corrections = {}
    for lane in LANES:
        shown = [factor for run in ours for factor in shown_factors(run).get(lane, ())][-RUNS:]
        if shown:
            corrections[lane] = _damped(median(shown), len(shown))
    return replace(machine, corrections=corrections)


def shown_factors(run: KeptRun) -> Mapping[str, Sequence[float]]:
    """By lane, how much faster than measured a run has shown it to be: a factor for each phase that it bounds."""
    found: dict[str, list[float]] = {}
    for _, forecast, measured in run.promise.phases:
        lane = measured.bound_by
        expected, took = forecast.lanes.get(lane, 0.0), measured.lanes.get(lane, 0.0)
        if measured.seconds >= SHORTEST and expected > 0 and took > 0:
            factor = run.corrections.get(lane, 1.0) * expected / took
            if math.isfinite(factor):
                found.setdefault(lane, []).append(factor)
    return found


def _damped(factor: float, runs: int) -> float:
    """On a logarithmic scale, so that twice as fast and twice as slow weigh the same."""
    return min(MOST, max(LEAST, math.pow(factor, 1 - DAMPING**runs)))
