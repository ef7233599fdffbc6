"""A profile file keeps a machine exactly; one that is damaged says which field holds what, and what it should hold."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machines import MACHINE
from windlass.errors import UsageError
from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.link import Link
from windlass.facts.machine import Machine
from windlass.facts.machine_file import machine_from_json, machine_json, read_machine, write_machine
from windlass.facts.rate_curve import RateCurve

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
RATE = st.floats(0, 1e18)
SIZE = st.integers(0, 1 << 50)
FACTOR = st.floats(1e-3, 1e3)


@st.composite
def curves(draw: st.DrawFn) -> dict[str, RateCurve]:
    amounts = draw(st.lists(st.integers(1, 1 << 20), unique=True, max_size=4).map(sorted))
    curve = RateCurve(tuple((amount, draw(st.floats(1e-3, 1e18))) for amount in amounts))
    return draw(st.dictionaries(st.sampled_from(["bfloat16", "float32"]), st.just(curve)))


RATES = st.builds(
    ComputeRates, name=TEXT, memory=SIZE, memory_rate=RATE, matmul=curves(), prefill_attention=curves(),
    decode_attention=curves(), step_seconds=RATE, row_rate=RATE, copy_rate=RATE, packed_matmul=curves(),
)  # fmt: skip
LINKS = st.builds(
    Link, upload=RATE, download=RATE, both=RATE, upload_pageable=RATE, download_pageable=RATE, latency=RATE
)
DISKS = st.builds(DiskProfile, rate=RATE, chunk=SIZE, depth=SIZE, direct=st.booleans(), reason=TEXT)
MACHINES = st.builds(
    Machine, name=TEXT, measured=TEXT, cores=st.integers(1, 999), host=RATES, disk=DISKS, disk_write=RATE,
    process_bytes=SIZE, device=st.none() | RATES, link=st.none() | LINKS,
    sources=st.dictionaries(TEXT, TEXT, max_size=3),
    corrections=st.dictionaries(st.sampled_from(["disk", "compute"]), FACTOR),
)  # fmt: skip


@settings(max_examples=25)
@given(MACHINES)
def test_any_machine_comes_back_as_it_was(machine: Machine) -> None:
    assert machine_from_json(json.loads(json.dumps(machine_json(machine)))) == machine


def test_a_file_holds_the_machine_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "machines" / "here.json"
    write_machine(file, MACHINE)
    write_machine(file, replace(MACHINE, disk_write=2e9))
    assert read_machine(file) == replace(MACHINE, disk_write=2e9)
    assert list(file.parent.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_profile_and_no_other_file(tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    write_machine(file, MACHINE)
    with pytest.raises(TypeError):
        write_machine(file, replace(MACHINE, sources={"disk": object()}))
    assert read_machine(file) == MACHINE and list(tmp_path.iterdir()) == [file]


def changed(change: Callable[[Any], Any]) -> Any:
    value = json.loads(json.dumps(machine_json(MACHINE)))
    change(value)
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(version=9), "version must be 1, got 9: .* windlass doctor --fresh"),
        (lambda v: v.pop("disk"), "disk is missing; measure the machine again"),
        (lambda v: v["host"].pop("row_rate"), "host.row_rate is missing"),
        (lambda v: v.update(cores=0), "cores must be a whole number from 1 up, got 0"),
        (lambda v: v.update(cores=True), "cores must be a whole number from 0 up, got True"),
        (lambda v: v.update(disk_write=-1), "disk_write must be a number from 0 up, got -1"),
        (lambda v: v.update(disk_write=float("nan")), "disk_write must be a number from 0 up, got nan"),
        (lambda v: v["disk"].update(direct="yes"), "disk.direct must be true or false, got 'yes'"),
        (lambda v: v.update(name=3), "name must be a string, got 3"),
        (lambda v: v.update(gpu={}), "gpu is not known; remove it, or use one of"),
        (lambda v: v.update(device=[]), r"device must be an object, got \[\]"),
        (lambda v: v["host"]["matmul"].update(float32=[[1]]), "host.matmul.float32 must be a list of "),
        (
            lambda v: v["host"]["matmul"].update(float32=[[4, 1.0], [2, 1.0]]),
            "host.matmul.float32 must have rising amounts, got 2 after 4",
        ),
        (lambda v: v["host"]["matmul"].update(float32=[[4, 0]]), "host.matmul.float32 must have rates above 0"),
        (lambda v: v["corrections"].update(disk=0), "corrections.disk must be a number above 0, got 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        machine_from_json(changed(change))


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none.json cannot be read: No such file"):
        read_machine(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"version": 1, ')
    with pytest.raises(UsageError, match="torn.json is no JSON .*; make one with windlass doctor"):
        read_machine(tmp_path / "torn.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match="list.json: a machine profile must be an object"):
        read_machine(tmp_path / "list.json")


def test_a_kept_profile_is_found_without_torch(tmp_path: Path) -> None:
    """`windlass plan` must be instant on a machine that is known."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom windlass.facts.machine_store import kept_machine\n"
        "kept_machine(Path.cwd())\nprint('torch' in sys.modules)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "WINDLASS_CACHE": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("False\n", "")
