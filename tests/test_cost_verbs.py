"""`windlass cost` from the outside: on machines that are not here, by forecasts, with every assumption changeable."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from planned_models import decoder, laptop, workstation
from windlass.cli.main import app
from windlass.economics.assumption import Assumption
from windlass.economics.formula import Formula
from windlass.economics.inference import inference, inferences
from windlass.economics.pictures import ways
from windlass.economics.power import EnergyCounter, energy_counters, joules_between, own_ratings
from windlass.economics.questions import device_of
from windlass.economics.report import CostReport
from windlass.economics.serving import cheapest_block
from windlass.economics.sheet import Sheet, make_sheet
from windlass.economics.trajectory import AS_IT_WAS, Point, published_tokens, yearly_factor
from windlass.facts.catalogue import catalogue, machine_named
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits

JOB = ("job", "opt-125m", "--machine", "rtx3090", "--prompt-len", "100", "--gen-len", "20", "--num-prompts", "40")
JOB_API = ("--set", "api_input=0.02", "--set", "api_output=0.04")
SERVE = ("serve", "opt-125m", "--machine", "t4", "--queries-per-day", "1e6", "--tokens-in", "200", "--tokens-out", "50")


def windlass(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["cost", *arguments], prog_name="windlass")
    return result.exit_code, result.stdout, result.stderr


def told(*arguments: str) -> dict[str, Any]:
    code, out, error = windlass(*arguments, "--json")
    assert code == 0, error
    return dict(json.loads(out))


def figures(report: dict[str, Any], place: int = 0) -> dict[str, float]:
    return {name: part["value"] for name, part in report["sheets"][place]["quantities"].items()}


def test_a_job_is_priced_by_its_forecast_beside_a_rented_card_and_an_api() -> None:
    found = figures(told(*JOB, *JOB_API))
    planned = CliRunner().invoke(app, ["plan", *JOB[1:], "--json"])
    assert found["job_seconds"] == pytest.approx(json.loads(planned.stdout)["forecast"]["seconds"], rel=0.05)
    assert found["energy"] == pytest.approx(found["power"] * found["job_seconds"] / 3.6e6)
    assert found["wear"] == pytest.approx((40 * 400 + 800 * 6) / 1200e12)
    assert found["api_cost"] == pytest.approx((4000 * 0.02 + 800 * 0.04) / 1e6)
    assert found["machine_price"] == 850 + 1200
    saved = (found["rented_cost"] - found["running_cost"]) / 40
    assert found["break_even_against_rent"] == pytest.approx(found["machine_price"] / saved)


def test_where_nothing_is_saved_it_never_breaks_even() -> None:
    report = told(*JOB, "--set", "api_input=1e-9", "--set", "api_output=1e-9")
    assert figures(report)["break_even_against_api"] == "never"
    assert "never" in windlass(*JOB, "--set", "api_input=1e-9", "--set", "api_output=1e-9")[1]


def test_prices_that_are_not_known_are_asked_for_and_the_rest_is_told() -> None:
    code, out, _ = windlass(*JOB)
    assert code == 0 and "api_cost" not in out and "rented_cost" in out
    assert "no API's price of opt-125m is known; give --set api_input=" in out


def test_every_assumption_can_be_set_by_flag_or_file(tmp_path: Path) -> None:
    entry = {"name": "electricity", "value": 0.5, "unit": "USD/kWh", "source": "my bill", "date": "2026-10"}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([entry]))
    plain = figures(told(*JOB))
    assert figures(told(*JOB, "--assumptions", str(file)))["electricity_cost"] == pytest.approx(plain["energy"] * 0.5)
    assert figures(told(*JOB, "--set", "electricity=1"))["electricity_cost"] == pytest.approx(plain["energy"])
    assert "electricity = 0.5 USD/kWh  [2026-10; my bill]" in windlass(*JOB, "--assumptions", str(file), "--explain")[1]


def test_a_fleet_carries_the_peak_of_the_day_and_no_machine_less_would() -> None:
    report = told(*SERVE)
    found = figures(report)
    peak = 1e6 / 86400 * 2.0
    able = found["machine_queries_per_second"] * 0.7
    assert (found["machines"] - 1) * able < peak <= found["machines"] * able
    assert found["cost_per_query"] == pytest.approx(found["machines"] * 24 * 0.526 / 1e6)
    # What is asked for the tokens of a query comes to what the query costs.
    tokens = (200 * found["price_in"] + 50 * found["price_out"]) / 1e6
    assert tokens == pytest.approx(found["cost_per_query"])
    assert figures(told(*SERVE, "--set", "peak_to_mean=20"))["machines"] > found["machines"]


def test_a_latency_target_makes_the_block_smaller_or_is_refused() -> None:
    model, place = decoder(layers=8, hidden=2048, heads=16, inner=8192), workstation()
    tried = inferences(model, 256, 64, place, Limits())
    patient = cheapest_block(tried, None)
    seconds = patient.forecast.prefill.seconds + patient.forecast.decode.seconds
    hurried = cheapest_block(tried, seconds / 2)
    assert hurried.plan.block_size < patient.plan.block_size
    code, out, error = windlass(*SERVE, "--latency", "0.001")
    assert (code, out) == (2, "") and error.startswith("error: --latency 0.001: the quickest block on")


def test_smaller_weights_are_taken_where_they_are_faster_and_their_copy_wears_the_disk() -> None:
    model, small = decoder(layers=16, hidden=1024, inner=4096), laptop(disk=0.2e9)
    tight, work = Limits(host_memory=700 << 20), Workload(8, 64, 16)
    packed = inference(model, work, small, tight, ("int4",))
    assert packed.format == "int4" and packed.weight_bytes < model.weight_bytes / 2
    assert packed.forecast.seconds < inference(model, work, small, tight).forecast.seconds


def test_search_stands_beside_today_and_one_card() -> None:
    report = told("search", "--model", "opt-125m", "--machine", "t4", "--set", "words_per_result=500", *JOB_API)
    titles = [sheet["title"] for sheet in report["sheets"]]
    assert titles[0] == "January 2023" and titles[1] == "opt-125m by an API" and "Windlass on one card" in titles[3]
    today = figures(report, 1)
    assert today["reader_words_in"] == 10 * 550 and figures(report)["search_words"] == 50 + 10 * 900
    model = 0.7 * (today["query_tokens_in"] * 0.02 + today["query_tokens_out"] * 0.04) / 1e6
    assert today["query_cost"] == pytest.approx(0.0106 + model)


def test_the_trajectory_keeps_old_prices_at_their_date_and_ends_with_a_card() -> None:
    report = told("trajectory", "--model", "opt-125m")
    tokens = [point for point in report["points"] if point["unit"] == "USD/Mtoken"]
    assert (tokens[0]["year"], tokens[0]["cost"]) == (pytest.approx(2021 + 10 / 12), 60)
    assert tokens[-1]["what"] == "opt-125m, rtx3090" and tokens[-1]["source"].startswith("forecast of")
    training = {point["what"]: point["cost"] for point in report["points"] if point["series"] == AS_IT_WAS}
    ranged = [point for point in report["points"] if point["high"] is not None]
    assert {point["what"] for point in ranged} >= {"V100", "H100", "opt-125m, rtx3090"}
    assert all(point["low"] < point["cost"] < point["high"] for point in ranged)
    # Lambda's estimate of 2020, which is published and not used: 4.6 million dollars.
    assert training["V100"] == pytest.approx(4.6e6, rel=0.1)


def test_the_yearly_factor_of_a_straight_fall_is_that_fall() -> None:
    points = [Point("a", "b", 2020.0 + year, 100 / 3**year, "USD", "a test") for year in range(4)]
    assert yearly_factor(points) == pytest.approx(3)
    assert yearly_factor(published_tokens()) > 3


def test_the_cheapest_model_of_a_loss_is_told_and_no_neighbour_is_cheaper() -> None:
    arguments = ("train", "--loss", "2.0", "--served-tokens", "1e13")
    found = figures(told(*arguments))
    size, data = found["parameters"], found["training_tokens"]
    out = windlass(*arguments)[1]
    assert "6.008 billion parameters on 4.506 trillion tokens, the cheapest of loss 2" in out
    assert "  parameters " in out and "layers, width and context are not known" in out

    def spent(size: float) -> float:
        left = 2.0 - 1.69 - 406.4 / size**0.34
        return float(6 * size * (410.7 / left) ** (1 / 0.28) / 0.4 + 2 * size * 1e13 / 0.3)

    assert 1.69 + 406.4 / size**0.34 + 410.7 / data**0.28 == pytest.approx(2.0)
    assert spent(size) < min(spent(size * 1.02), spent(size / 1.02))


def test_a_picture_compares_what_can_be_compared() -> None:
    def sheet(title: str, unit: str) -> Sheet:
        pool = {"a": Assumption("a", 2.0, "USD", "a test", "2026", 1.0, 4.0)}
        formulas = (Formula("cost", "2 * a", unit, "all of it"), Formula("part", "a / 2", "USD", "a part of it"))
        return make_sheet(title, formulas, ("cost", "part"), pool)

    one = ways(CostReport("one", (sheet("x", "USD"),)))
    assert [(way.name, way.value) for way in one] == [("cost: all of it", 4.0), ("part: a part of it", 1.0)]
    assert one[0].spread.low < 4.0 < one[0].spread.high
    two = ways(CostReport("two", (sheet("x", "USD"), sheet("y", "USD"), sheet("z", "USD/query"))))
    assert [way.name for way in two] == ["x: cost", "y: cost"]
    assert ways(CostReport("three", (sheet("x", "USD"), sheet("z", "h")))) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("tornado.png", SERVE), ("trajectory.svg", ("trajectory", "--model", "opt-125m"))],
)
def test_a_picture_is_drawn_with_units_on_its_axes(name: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / name
    code, _, error = windlass(*arguments, "--plot", str(file))
    assert code == 0, error
    start = file.read_bytes()[:200]
    assert b"PNG" in start or b"<svg" in start or b"<?xml" in start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*JOB, "--set", "electricty=1"), "did you mean electricity"),
        ((*JOB, "--set", "electricity"), "is no name=value"),
        ((*JOB, "--plot", "cost.txt"), "must end in .png, .svg or .pdf"),
        ((*JOB, "--rent", "h999"), "--machine 'h999' is not known"),
        ((*JOB, "--max-seconds", "5"), "have no effect on a cost"),
        (("train",), "name MODEL, or --params and --tokens, or --loss"),
        (("train", "gpt4"), "did you mean gpt3"),
        (("train", "--params", "7e9"), "--params and --tokens belong together"),
        (("train", "--loss", "1.5"), "the law's floor is 1.69"),
        (("train", "gpt3", "--mfu", "0"), "--mfu 0 must be above 0"),
        (("train", "gpt3", "--fit", "mine"), "use hoffmann-2022 or besiroglu-2024"),
        (
            ("train", "gpt3", "--machine", "rtx3060"),
            "chip_per_hour is not known; give it with --set chip_per_hour=VALUE",
        ),
        ((*SERVE, "--queries-per-day", "0"), "must be above 0"),
        ((*SERVE, "--queries-per-day", "1e300"), "queries_per_day is 1e+300; give 0, or a number from"),
        ((*SERVE, "--set", "fill=0"), "fill is 0, and is divided by"),
        ((*SERVE, "--set", "fill=2"), "--set fill=2: fill is 2; a share lies between 0 and 1"),
        ((*SERVE, "--set", "rent_per_hour=-5"), "rent_per_hour is -5; it cannot be below 0"),
        ((*SERVE, "--set", "prefill_seconds=0", "--set", "decode_seconds=0"), "/ 0 has no value; give other"),
        (("search", "--set", "words_per_1k_tokens=0"), "words_per_1k_tokens is 0, and is divided by"),
        (("search", "--only-2023", "--set", "results=1e308"), "a number from 1e-30 to 1e+30"),
        (("train", "gpt3", "--mfu", "1.5"), "--mfu 1.5 is above 1, the whole peak"),
        (("train", "--params", "1e300", "--tokens", "1e300"), "parameters is 1e+300"),
        (("train", "--loss", "1.690001"), "--loss 1.690001 is out of reach"),
        (("train", "--loss", "100"), "--loss 100 is above 12, which guessing reaches"),
        (("train", "--loss", "2", "--set", "loss_alpha=0"), "loss_alpha is 0, and the law wants it above 0"),
        (("serve", "opt-125m", "--tokens-in", "3000"), "exceed the 2048 that opt-125m takes"),
    ],
)
def test_misuse_is_one_line_with_the_next_step(arguments: tuple[str, ...], message: str) -> None:
    code, out, error = windlass(*arguments)
    assert (code, out) == (2, "") and message in error and error.count("\n") == 1


def test_a_measured_machine_finds_the_price_of_its_card() -> None:
    for name in catalogue():
        assert device_of(machine_named(name)) == name
    assert device_of(machine_named("cpu")) == "cpu"
    place = workstation()
    assert place.device is not None
    driver = replace(place, device=replace(place.device, name="NVIDIA GeForce RTX 4090"))
    assert (device_of(driver), device_of(place)) == ("rtx4090", None)


def test_energy_is_read_from_whole_packages_and_survives_a_counter_that_begins_again(tmp_path: Path) -> None:
    for name, microjoules in (("intel-rapl:0", 999_000_000), ("intel-rapl:0:0", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000\n")
        (tmp_path / name / "constraint_0_power_limit_uw").write_text("125000000\n")
    before = energy_counters(tmp_path)
    assert before["intel-rapl:0"] == EnergyCounter(999.0, 1000.0) and "intel-rapl:0:0" not in before
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("4000000\n")
    after = {name: counter for name, counter in energy_counters(tmp_path).items() if name != "card"}
    spent = joules_between(before, after)
    assert spent is not None and math.isclose(spent, 5.0)
    assert own_ratings(tmp_path)["host_busy_watts"].value == 125
    assert joules_between({}, {}) is None
