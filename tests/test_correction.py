"""Corrections of a machine's profile: bounded, monotone, quick to the truth, and none where forecasts were kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_machine import MACHINE
from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.kept_promise import KeptPromise
from windlass.facts.kept_run import KeptRun
from windlass.facts.machine import Machine
from windlass.planner.correction import LEAST, MOST, RUNS, corrected

NOTHING = PhaseForecast(0, 0, 0.0, {})
FACTORS = st.floats(0.01, 100)


def run_of(
    forecast: float, measured: float, lane: str = "disk", machine: Machine = MACHINE, share: float = 1.0
) -> KeptRun:
    """One decode phase that `lane` binds for `share` of its time, another lane for a tenth of it."""
    promised = PhaseForecast(10, 10, forecast / share, {lane: forecast, "host": forecast})
    took = PhaseForecast(10, 10, measured / share, {lane: measured, "host": measured / 10})
    promise = KeptPromise(Forecast(0.0, NOTHING, promised), Forecast(0.0, NOTHING, took))
    return KeptRun("2026-11-02", "m", {}, machine.name, machine.measured, machine.corrections, promise)


def learnt(true: float, runs: int, lane: str = "disk") -> Machine:
    """A machine on which a lane is `true` times as fast as measured; each forecast is made with what was learnt."""
    machine, kept = MACHINE, []
    for _ in range(runs):
        now = machine.corrections.get(lane, 1.0)
        kept.append(run_of(100.0 / now, 100.0 / true, lane, machine))
        machine = corrected(machine, kept)
    return machine


@given(st.lists(st.tuples(FACTORS, FACTORS), max_size=12))
def test_corrections_are_bounded_and_leave_the_measured_rates(pairs: Sequence[tuple[float, float]]) -> None:
    found = corrected(MACHINE, [run_of(100 * forecast, 100 * measured) for forecast, measured in pairs])
    assert all(LEAST <= factor <= MOST for factor in found.corrections.values())
    assert replace(found, corrections={}) == MACHINE


@given(st.lists(FACTORS, min_size=1, max_size=12), st.floats(1, 10))
def test_slower_runs_never_make_a_lane_faster(measured: Sequence[float], slower: float) -> None:
    def factor(scale: float) -> float:
        return corrected(MACHINE, [run_of(100.0, 100 * each * scale) for each in measured]).corrections["disk"]

    assert factor(slower) <= factor(1.0)


@given(st.integers(1, 12), st.sampled_from(["disk", "upload", "compute"]), st.floats(1, 1000))
def test_forecasts_that_were_kept_change_nothing(runs: int, lane: str, seconds: float) -> None:
    found = corrected(MACHINE, [run_of(seconds, seconds, lane)] * runs)
    assert found.corrections == {lane: pytest.approx(1.0)}


@given(st.floats(LEAST, MOST), st.sampled_from(["disk", "upload", "compute"]))
def test_a_few_runs_that_agree_find_the_true_factor(true: float, lane: str) -> None:
    assert learnt(true, 6, lane).corrections == {lane: pytest.approx(true, rel=0.03)}
    assert learnt(true, 20, lane).corrections == {lane: pytest.approx(true, rel=0.03)}, "and it stays there"


@given(st.floats(LEAST, MOST))
def test_each_run_comes_nearer_and_none_goes_beyond(true: float) -> None:
    steps = [learnt(true, runs).corrections.get("disk", 1.0) for runs in range(6)]
    distances = [abs(step - true) for step in steps]
    assert distances == sorted(distances, reverse=True)
    assert all(min(1.0, true) - 1e-9 <= step <= max(1.0, true) + 1e-9 for step in steps)


def test_a_lane_far_off_is_corrected_to_the_bound() -> None:
    assert learnt(0.1, 8).corrections["disk"] == LEAST
    assert learnt(10.0, 8).corrections["disk"] == MOST


def test_a_busy_afternoon_is_shrugged_off() -> None:
    calm = [run_of(100.0, 100.0)] * 5
    assert corrected(MACHINE, [*calm, run_of(100.0, 300.0), run_of(100.0, 400.0)]).corrections["disk"] == 1.0


def test_old_runs_are_forgotten() -> None:
    runs = [*[run_of(100.0, 200.0)] * 50, *[run_of(100.0, 100.0)] * RUNS]
    assert corrected(MACHINE, runs).corrections["disk"] == 1.0


def test_corrections_are_made_anew_so_that_they_cannot_drift() -> None:
    runs = [run_of(100.0, 130.0)] * 3
    once = corrected(MACHINE, runs)
    assert corrected(once, runs) == once
    assert corrected(once, []) == MACHINE


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(run_of(0.2, 0.9), id="less than a second"),
        pytest.param(run_of(0.0, 10.0), id="nothing was forecast for the lane"),
        pytest.param(replace(run_of(10.0, 20.0), machine="other"), id="another machine"),
        pytest.param(replace(run_of(10.0, 20.0), machine_measured="2025-01-01"), id="measured anew since"),
    ],
)
def test_what_shows_nothing_is_left_out(run: KeptRun) -> None:
    assert corrected(MACHINE, [run]).corrections == {}


def test_only_the_lane_that_binds_a_phase_is_corrected() -> None:
    """Another waits for it, so how long it is busy says little; each phase has its own."""
    prefill = PhaseForecast(10, 1, 10.0, {"compute": 10.0, "disk": 5.0})
    decode = PhaseForecast(10, 10, 10.0, {"compute": 2.0, "disk": 10.0})
    slow: Mapping[str, float] = {"compute": 20.0, "disk": 9.0}
    promise = KeptPromise(
        Forecast(0.0, prefill, decode),
        Forecast(
            0.0, replace(prefill, lanes=slow, seconds=20.0), replace(decode, lanes={"compute": 9.0, "disk": 40.0})
        ),
    )
    run = KeptRun("", "m", {}, MACHINE.name, MACHINE.measured, {}, promise)
    found = corrected(MACHINE, [run]).corrections
    assert found == {"compute": pytest.approx(0.5**0.5), "disk": pytest.approx(0.25**0.5)}
