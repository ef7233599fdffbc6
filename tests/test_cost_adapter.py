"""`windlass cost train --adapter`: sizes counted by hand, seconds that are the planner's own, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from checkpoints import byte_llama
from planned_models import decoder, laptop, workstation
from windlass.cli.main import app
from windlass.economics.adapter import adapted_matrices, beside_adapter
from windlass.economics.assumption import Assumption, exact
from windlass.economics.prices import machine_prices
from windlass.economics.questions import Changes, Place, adapter_report
from windlass.economics.report import CostReport
from windlass.facts.catalogue import machine_named
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits, estimated_demands
from windlass.planner.search import THOROUGH, explore
from windlass.units import GIB

TRAIN = ("train", "opt-125m", "--adapter", "--tokens", "1e6", "--machine", "rtx3090")


def windlass(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["cost", *arguments], prog_name="windlass")
    return result.exit_code, result.stdout, result.stderr


def told(*arguments: str) -> dict[str, float]:
    code, out, error = windlass(*arguments, "--json")
    assert code == 0, error
    return {name: part["value"] for name, part in json.loads(out)["sheets"][0]["quantities"].items()}


def test_the_parameters_of_a_small_llama_are_those_counted_by_hand(tmp_path: Path) -> None:
    """Two layers in float32, 64 wide and 96 inside; 4 heads of 16, which share 2 of keys and values."""
    folder = byte_llama(tmp_path / "model")
    found = told("train", folder, "--adapter", "--rank", "8", "--tokens", "1e5", "--seq-len", "128")
    attention = (64 + 64) + (64 + 32) + (64 + 32) + (64 + 64)
    assert found["trainable_parameters"] == 2 * 8 * (attention + 3 * (64 + 96))
    assert found["adapter_state_bytes"] == 16 * found["trainable_parameters"]
    assert found["checkpoint_bytes"] == found["batch"] * 128 * 2 * 64 * 4
    assert found["steps"] == -(-782 // found["batch"])


def test_the_parameters_of_a_known_model_are_those_that_are_published() -> None:
    """Rank 16 on every matrix of a layer of Llama 3 8B: what trainers print is 41,943,040."""
    assert told("train", "llama-3-8b", "--adapter", "--tokens", "1e6")["trainable_parameters"] == 41_943_040


def test_experts_have_an_adapter_each_and_what_is_no_matrix_of_a_layer_has_none() -> None:
    dense, mixture = decoder(layers=2, hidden=64, inner=96), decoder(layers=2, hidden=64, inner=96, experts=5)
    attention = 2 * (2 * (64 + 64) + 2 * (64 + 32))
    assert adapted_matrices(dense).sides == attention + 2 * 2 * (64 + 96)
    assert adapted_matrices(mixture).sides == attention + 2 * 5 * 3 * (64 + 96)


def test_a_run_takes_three_times_as_long_as_the_planner_says_of_reading_its_tokens() -> None:
    machine, facts = machine_named("rtx3090", host_memory=128 * GIB), decoder(layers=4)
    state = 16 * 16 * adapted_matrices(facts).sides
    work = Workload(977, 1024, 0, scored=True)
    budget = estimated_demands(facts, work, machine, Limits()).budget
    demands = estimated_demands(facts, work, machine, Limits(gpu_memory=budget - state))
    planned = explore(facts, work, demands, machine, THOROUGH).best.forecast
    found = adapter(facts, machine).sheets[0].values()
    assert found["tuning_seconds"] == pytest.approx(3 * planned.prefill.seconds) and planned.prefill.seconds > 0
    assert found["job_seconds"] == pytest.approx(planned.load_seconds + 3 * planned.prefill.seconds)
    assert found["own_cost"] > found["running_cost"] > 0
    two = adapter(facts, machine, recomputed_walks=0.0).sheets[0].value("tuning_seconds")
    assert two == pytest.approx(2 * planned.prefill.seconds)


def test_a_model_that_does_not_fit_costs_more_on_a_slower_disk_and_one_that_fits_does_not() -> None:
    facts = decoder(layers=6, hidden=4096, heads=32, inner=16384)
    assert facts.weight_bytes > 2e9

    def cost(disk: float, limits: Limits) -> float:
        slow = replace(workstation(), host=laptop().host, disk=laptop(disk).disk)
        values = adapter(facts, slow, limits).sheets[0].values()
        # A longer load is the disk's too: the walks alone tell whether weights travel.
        return float(values["own_cost"] * values["tuning_seconds"] / values["job_seconds"])

    tight = Limits(host_memory=3 * GIB // 2, gpu_memory=3 * GIB // 2)
    assert cost(0.1e9, tight) > 1.5 * cost(2e9, tight)
    assert cost(0.1e9, Limits()) == pytest.approx(cost(2e9, Limits()), rel=0.25)


def test_the_adapter_and_its_optimiser_take_their_room_on_the_card() -> None:
    facts, machine = decoder(), workstation()
    work, limits = Workload(8, 128, 0, scored=True), Limits(gpu_memory=4 * GIB)
    sizes = {"rank": 16.0, "matrix_sides": float(adapted_matrices(facts).sides), "optimiser_bytes_per_parameter": 12.0}
    pool = {name: exact(name, value, "unit", "a test", "2026") for name, value in sizes.items()}
    left = beside_adapter(facts, work, machine, limits, pool).gpu_memory
    assert left == 4 * GIB - 12 * 16 * adapted_matrices(facts).sides


def test_it_says_that_windlass_does_not_train_yet_and_where_its_factors_come_from() -> None:
    code, out, _ = windlass(*TRAIN, "--explain")
    assert code == 0 and "note: Windlass does not train yet" in out and "rented_cost" in out
    assert "recomputed_walks = 1 walks, from 0.3 to 1  [2016-04; Chen et al. 2016" in out
    assert "does not train yet" in CliRunner().invoke(app, ["cost", "train", "--help"]).stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRAIN, "--rank", "0"), "0 is below 1"),
        ((*TRAIN, "--rank", "100000"), "use at most "),
        ((*TRAIN, "--rank", "300", "--set", "optimiser_bytes_per_parameter=1e4"), "use a smaller rank or a larger"),
        ((*TRAIN, "--seq-len", "4096"), "--seq-len 4096 exceeds the 2048 that opt-125m takes"),
        ((*TRAIN, "--mfu", "0.4"), "--mfu 0.4 has no effect with --adapter"),
        ((*TRAIN[:3], "--tokens", "10"), "--tokens 10 are fewer than one sequence of 1024"),
        (("train", "opt-125m", "--adapter"), "--adapter wants MODEL and --tokens"),
        (("train", "gpt3", "--rank", "8"), "--rank 8 has no effect without --adapter"),
        ((*TRAIN, "--set", "recomputed_walk=0"), "did you mean recomputed_walks"),
    ],
)
def test_misuse_is_one_line_with_the_next_step(arguments: tuple[str, ...], message: str) -> None:
    code, out, error = windlass(*arguments)
    assert (code, out) == (2, "") and message in error and error.count("\n") == 1


def adapter(facts: ModelFacts, machine: Machine, limits: Limits | None = None, **settings: float) -> CostReport:
    """Rank 16, a million tokens, beside a rented H100, whatever `machine` is at the price of an RTX 3090."""
    prices: dict[str, Assumption] = machine_prices("rtx3090")
    assert "card_price" in prices
    here = Place(machine, "rtx3090", limits or Limits())
    there = Place(machine_named("h100"), "h100", Limits())
    return adapter_report(facts, 16, 1e6, 1024, here, there, (), Changes({}, settings))
