"""A forecast stands beside what was measured of the same work, is kept with the run, and is read back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import random_model, random_prompts, save
from example_machine import MACHINE
from windlass.engine.foresight import Foresight
from windlass.engine.llm import LLM
from windlass.errors import StorageError
from windlass.facts import run_log
from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.kept_promise import KeptFigure, KeptPromise
from windlass.facts.kept_run import KeptRun, read_kept_run
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.run_log import RunLog
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.work_done import PassesDone, WorkDone, together
from windlass.settings import cache_folder

PREFILL = PhaseForecast(1000, 1, 10.0, {"disk": 4.0, "compute": 10.0})
DECODE = PhaseForecast(310, 10, 20.0, {"disk": 18.0, "compute": 6.0})
FORECAST = Forecast(3.0, PREFILL, DECODE)
REPORT = RunReport(
    load_seconds=3.6,
    prefill_tokens=1000,
    prefill_seconds=11.0,
    prefill_passes=1,
    decode_tokens=310,
    decode_seconds=25.0,
    decode_passes=10,
    bytes_read=22_000_000_000,
    disk_rate=1e9,
    disk_limit=1.2e9,
    prefill_lanes={"disk": 4.0, "compute": 11.0, "upload": 0.0},
    decode_lanes={"disk": 24.0, "compute": 5.0, "upload": 0.0},
    forecast=FORECAST,
)


def kept_run(forecast: Forecast = FORECAST) -> KeptRun:
    promise = replace(REPORT, forecast=forecast).promise
    assert promise is not None
    return KeptRun("2026-11-02T10:00:00+00:00", "m", {"device": "cpu"}, "box", "2026-11-01", {"disk": 0.9}, promise)


def test_every_phase_lane_and_rate_has_its_ratio() -> None:
    promise = REPORT.promise
    assert promise is not None
    found = {each.name: (each.forecast, each.measured, each.ratio) for each in promise.figures()}
    assert found == {
        "load": (3.0, 3.6, pytest.approx(1.2)),
        "prefill": (10.0, 11.0, pytest.approx(1.1)),
        "prefill disk": (4.0, 4.0, 1.0),
        "prefill compute": (10.0, 11.0, pytest.approx(1.1)),
        "decode pass": (2.0, 2.5, pytest.approx(1.25)),
        "decode disk": (18.0, 24.0, pytest.approx(4 / 3)),
        "decode compute": (6.0, 5.0, pytest.approx(5 / 6)),
        "disk rate": (pytest.approx(1e9 * 28 / 22), 1e9, pytest.approx(22 / 28)),
    }


def test_people_and_machines_are_told() -> None:
    lines = REPORT.lines()
    (decode,) = [line for line in lines if "decode pass" in line]
    assert decode.split() == ["decode", "pass", "2.50", "s", "measured", "2.00", "s", "forecast", "1.25"]
    assert len([line for line in lines if line.startswith("promise")]) == 1
    found = json.loads(json.dumps(REPORT.as_dict()))
    assert found["promise"]["prefill"] == {"unit": "s", "forecast": 10.0, "measured": 11.0, "ratio": 1.1}
    assert found["forecast"]["decode"]["passes"] == 10


def test_moments_have_no_ratio_for_people() -> None:
    assert KeptFigure("load", "s", 0.049, 0.001).line().split()[-1] == "forecast"
    assert KeptFigure("load", "s", 0.049, 0.051).line().endswith("1.04")
    assert KeptFigure("disk rate", "B/s", 0.04, 0.02).line().endswith("0.50")


def test_without_a_forecast_nothing_is_claimed() -> None:
    plain = replace(REPORT, forecast=None)
    assert plain.promise is None and plain.as_dict()["promise"] is None
    assert not any("forecast" in line for line in plain.lines())


def test_what_was_not_forecast_has_no_ratio() -> None:
    nothing = Forecast(0.0, PhaseForecast(0, 0, 0.0, {}), PhaseForecast(0, 0, 0.0, {}))
    promise = KeptPromise(nothing, Forecast(1.0, PREFILL, DECODE), {"disk": 1e9})
    assert {each.ratio for each in promise.figures()} == {None}
    assert promise.lines()


def plain(done: WorkDone) -> Forecast:
    """A machine that takes 10 ms a prompt token and 2 s a pass that decodes."""
    read, passes = done.read_tokens, sum(each.passes for each in done.passes if each.drawn)
    prefill = PhaseForecast(
        read, sum(each.passes for each in done.passes) - passes, read * 0.01, {"compute": read * 0.01}
    )
    return Forecast(1.0, prefill, PhaseForecast(done.drawn_tokens, passes, passes * 2.0, {"disk": passes}))


def test_calls_add_up_and_load_once() -> None:
    both = together(FORECAST, FORECAST)
    assert both.load_seconds == 3.0
    assert (both.decode.passes, both.decode.seconds, both.decode.lanes["disk"]) == (20, 40.0, 36.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    save(random_model("llama"), made)
    return made


class TestEngine:
    """A tiny model with a forecast of its own."""

    def test_a_run_is_forecast_for_what_it_did_and_kept(self, folder: Path) -> None:
        prompts = [{"prompt_token_ids": prompt} for prompt in random_prompts(5, 9, 7)]
        lengths = [SamplingParams(max_tokens=n, temperature=0.0, ignore_eos=True) for n in (3, 6, 4)]
        asked: list[WorkDone] = []

        def forecast(model: ModelFacts, plan: Plan, machine: Machine, done: WorkDone) -> Forecast:
            assert (model.model_type, machine) == ("llama", MACHINE)
            asked.append(done)
            return plain(done)

        before = len(RunLog(cache_folder()).last())
        with LLM(folder) as llm:
            llm.foresee(Foresight(MACHINE, forecast))
            llm.generate(prompts, lengths)
            first = llm.report
            llm.generate(prompts[:1], lengths[0])
            second = llm.report
        assert asked == [
            # Prompts of 5, 9 and 7 tokens, answers of 3, 6 and 4: two passes of three rows, one of two and two of one.
            WorkDone(3, 3, 7, 5, (PassesDone(1, 21, 0), PassesDone(3, 0, 8), PassesDone(2, 0, 2))),
            WorkDone(1, 1, 5, 3, (PassesDone(1, 5, 0), PassesDone(2, 0, 2))),
        ]
        for report in (first, second):
            assert report.forecast is not None
            for forecast_, tokens, passes in (
                (report.forecast.prefill, report.prefill_tokens, report.prefill_passes),
                (report.forecast.decode, report.decode_tokens, report.decode_passes),
            ):
                assert (forecast_.tokens, forecast_.passes) == (tokens, passes)
        assert first.forecast is not None and first.forecast.decode.seconds == pytest.approx(2.0 * 5)
        (kept,) = RunLog(cache_folder()).last()[before:]
        assert kept.promise == second.promise
        assert (kept.machine, kept.machine_measured, kept.model) == ("box", "2026-11-01", llm.opened.facts.name)
        assert kept.plan["device"] == "cpu"

    def test_a_stream_that_was_left_is_forecast_as_far_as_it_came(self, folder: Path) -> None:
        params = SamplingParams(max_tokens=50, temperature=0.0, ignore_eos=True)
        with LLM(folder) as llm:
            llm.foresee(Foresight(MACHINE, lambda *asked: plain(asked[-1])))
            answers = llm.stream([{"prompt_token_ids": [1, 2, 3]}], params)
            for _ in range(4):
                next(answers)
            assert llm.report.forecast is None, "the call is under way"
            answers.close()
            assert llm.report.forecast is not None
            assert llm.report.forecast.decode.passes == llm.report.decode_passes == 3

    def test_a_log_that_cannot_be_written_costs_a_warning(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "runs").write_text("in the way")
        with LLM(folder) as llm:
            llm.foresee(Foresight(MACHINE, lambda *asked: plain(asked[-1])))
            llm.generate([{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=2))
            monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path))
        assert [record.message for record in caplog.records if "the run was not kept" in record.message]

    def test_without_a_forecast_nothing_is_kept(self, folder: Path) -> None:
        before = len(RunLog(cache_folder()).last())
        with LLM(folder) as llm:
            llm.generate([{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=2))
            assert llm.report.forecast is None
        assert len(RunLog(cache_folder()).last()) == before


class TestLog:
    def test_a_run_is_read_back_as_it_was(self, tmp_path: Path) -> None:
        log = RunLog(tmp_path)
        assert log.last() == []
        log.append(kept_run())
        log.append(kept_run(replace(FORECAST, load_seconds=7.0)))
        assert log.last() == [kept_run(), kept_run(replace(FORECAST, load_seconds=7.0))]
        assert log.last(1) == log.last()[1:]
        assert json.loads(log.file.read_text().splitlines()[0])["figures"]["decode pass"]["ratio"] == 1.25

    def test_the_oldest_are_dropped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_log, "MOST", 20)
        log = RunLog(tmp_path)
        for number in range(30):
            log.append(kept_run(replace(FORECAST, load_seconds=float(number))))
            assert len(log.file.read_text().splitlines()) <= 22
        loads = [run.promise.forecast.load_seconds for run in log.last()]
        assert loads[-20:] == [float(number) for number in range(10, 30)]
        assert [path.name for path in log.file.parent.iterdir()] == ["runs.jsonl"]

    def test_a_line_of_another_version_or_a_torn_one_is_passed_over(self, tmp_path: Path) -> None:
        log = RunLog(tmp_path)
        log.append(kept_run())
        with log.file.open("a") as file:
            file.write('{"date": "2030"}\n[]\nnull\n{"torn": \n')
        log.append(kept_run())
        assert log.last() == [kept_run(), kept_run()]

    def test_a_folder_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "runs").write_text("a file in the way")
        with pytest.raises(StorageError, match="cannot be written: .*the run was not kept.*WINDLASS_CACHE"):
            RunLog(tmp_path).append(kept_run())


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=4)
)
def test_anything_else_is_no_kept_run(document: object) -> None:
    assert read_kept_run(document) is None
