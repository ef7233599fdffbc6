"""Known machines: every figure says where it comes from, tensor peaks are dense ones, and names resolve."""

import json
from pathlib import Path
from typing import Any

import pytest

from machines import MACHINE
from windlass.errors import UsageError
from windlass.facts import catalogue as module
from windlass.facts.catalogue import catalogue, efficiencies, generic_host, machine_named
from windlass.facts.machine_file import machine_from_json, machine_json, write_machine
from windlass.facts.machine_table import machine_lines
from windlass.units import GIB

# What the architecture can do at most: dense FLOP of a streaming multiprocessor in a clock, with float32 accumulation
# (NVIDIA's whitepapers of Turing, GA100, GA102, Ada, Hopper and RTX Blackwell), their number, and the boost clock.
SILICON = {
    "t4": (1024, 40, 1.59e9),
    "l4": (1024, 60, 2.04e9),
    "a10g": (512, 80, 1.71e9),
    "rtx3060": (512, 28, 1.777e9),
    "rtx3090": (512, 82, 1.695e9),
    "rtx4090": (512, 128, 2.52e9),
    "rtx5090": (512, 170, 2.407e9),
    "a5000": (1024, 64, 1.695e9),
    "a6000": (1024, 84, 1.8e9),
    "a100-40": (2048, 108, 1.41e9),
    "a100-80": (2048, 108, 1.41e9),
    "h100": (4096, 132, 1.83e9),
    "h200": (4096, 132, 1.83e9),
}


def figures(value: Any) -> list[dict[str, Any]]:
    """Every object with a value in the data, and every bare number, which has no place there."""
    if isinstance(value, dict):
        if "value" in value:
            return [value]
        return [figure for item in value.values() for figure in figures(item)]
    if isinstance(value, list):
        return [figure for item in value for figure in figures(item)]
    return [] if isinstance(value, str) else [{"value": value}]


def test_every_figure_has_a_source() -> None:
    data = json.loads((Path(module.__file__).parent / "machines.json").read_text())
    found = figures(data)
    assert len(found) > 80
    assert [figure for figure in found if len(figure.get("source", "")) < 10] == []


def test_every_machine_that_was_asked_for_is_known() -> None:
    assert set(catalogue()) == set(SILICON)


@pytest.mark.parametrize("name", SILICON)
def test_tensor_peaks_are_dense_and_no_more_than_the_silicon_does(name: str) -> None:
    rate, units, clock = SILICON[name]
    peak = catalogue()[name].peaks["float16"].value
    assert 0.85 * rate * units * clock < peak < 1.02 * rate * units * clock


@pytest.mark.parametrize("name", [*SILICON, "cpu"])
def test_every_machine_can_be_kept_and_told(name: str) -> None:
    machine = machine_named(name)
    assert machine_from_json(json.loads(json.dumps(machine_json(machine)))) == machine
    assert any("a 70B model in bfloat16 needs 141 GB a pass" in line for line in machine_lines(machine))


def test_few_rows_are_bound_by_reading_the_weights_and_many_by_arithmetic() -> None:
    device = machine_named("a100-80").device
    assert device is not None
    kept = {name: figure.value for name, figure in efficiencies().items()}
    assert device.matmul["bfloat16"].at(1) == pytest.approx(2039e9 * kept["memory"])
    assert device.matmul["bfloat16"].at(4096) == pytest.approx(312e12 * kept["compute"])
    assert device.matmul["float32"].at(1) == pytest.approx(device.matmul["bfloat16"].at(1) / 2)


def test_the_host_beside_a_device_is_this_one_if_it_is_known() -> None:
    machine = machine_named("T4", here=MACHINE)
    assert (machine.host, machine.disk) == (MACHINE.host, MACHINE.disk)
    assert machine.device is not None and machine.device.name == "NVIDIA T4"
    assert machine_named("t4").host == generic_host().host
    assert machine_named("cpu", here=MACHINE).device is None


def test_flags_take_the_place_of_what_is_known_and_are_the_source_then() -> None:
    machine = machine_named("rtx4090", host_memory=128 * GIB, bus="pcie4x8", disk_rate=7e9, here=MACHINE)
    assert machine.host.memory == 128 * GIB and machine.disk.rate == 7e9
    assert machine.link is not None
    assert machine.link.upload == pytest.approx(15.75e9 * efficiencies()["link"].value)
    assert machine.sources["disk"].startswith("--disk-rate 7.00 GB/s")
    assert "8 lanes" in machine.sources["link"]
    other = machine_named("rtx4090", bus="25GB/s").link
    assert other is not None and other.upload == 25e9


def test_a_profile_file_is_a_machine(tmp_path: Path) -> None:
    write_machine(tmp_path / "box.json", MACHINE)
    assert machine_named(str(tmp_path / "box.json")) == MACHINE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rtx4080"}, "--machine 'rtx4080' is not known; did you mean rtx4090"),
        ({"name": "abacus"}, "--machine 'abacus' is not known; use a profile file .* or one of cpu, t4, "),
        ({"name": "t4", "bus": "agp"}, "--bus 'agp' is not known; use a rate as 25GB/s, or one of pcie3x4"),
        ({"name": "cpu", "bus": "pcie4x8"}, "--bus pcie4x8 has no effect: .* has no device"),
        ({"name": "./none.json"}, "none.json cannot be read"),
    ],
)
def test_what_is_not_known_is_refused_with_the_nearest(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        machine_named(**arguments)
