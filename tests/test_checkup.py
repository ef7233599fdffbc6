"""The doctor tells what the machine has in plain words; what it cannot measure it says with the reason."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from machines import DISK, HOST, MACHINE
from windlass.cli import late
from windlass.cli.main import app
from windlass.errors import StorageError
from windlass.facts.catalogue import machine_named
from windlass.facts.checkup import Checkup, DiskCheck
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.machine import BUSY_SOURCE, Machine
from windlass.facts.machine_file import machine_from_json
from windlass.facts.machine_table import balanced_batch, machine_lines, seconds_a_pass
from windlass.facts.rate_curve import RateCurve
from windlass.jobs import checkup as job
from windlass.units import GIB

FOUND = Checkup(
    cores=2, cpu="AMD EPYC", cpu_features=("avx512f", "avx512_bf16"), memory_total=24 * GIB, memory_available=16 * GIB,
    control_group=17 * GIB, attention="plain torch, since there is no C compiler",
    products="native kernel (AVX-512)", devices=(),
    disks=(DiskCheck("/models", 75 * 10**9, DISK, 1.5e9),),
    versions={"torch": "2.13.0"}, machine=MACHINE, kept="/cache/machines/1.json",
)  # fmt: skip

Windlass = Callable[..., Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Path], bool]]:
    """Nothing is measured; what would have been is noted."""
    noted: list[tuple[list[Path], bool]] = []

    def known(folders: list[Path], fresh: bool, on_progress: Callable[[str, int, int], None]) -> tuple[Machine, ...]:
        noted.append((folders, fresh))
        on_progress("reading", 1, 2)
        return tuple(MACHINE for _ in folders)

    monkeypatch.setattr(job, "known_machines", known)
    return noted


def doctor(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_people_read_one_fact_a_line_then_a_table_then_what_it_means() -> None:
    assert [re.sub(" +", " ", line) for line in FOUND.lines()] == [
        "cpu AMD EPYC, 2 cores",
        " bfloat16 runs at full speed (avx512f, avx512_bf16)",
        "memory 16.0 GiB may be taken of 24.0 GiB; a control group leaves 17.0 GiB",
        "device none but the cpu",
        "disk /models: 2.60 GB/s read, best with 4 reads of 8.00 MiB in flight, 1.50 GB/s written, 75.0 GB free",
        " direct I/O: the filesystem takes O_DIRECT",
        "decode attends by plain torch, since there is no C compiler",
        "products of packed weights by native kernel (AVX-512)",
        "host AMD EPYC",
        " 24.0 GiB of memory, read at 20.0 GB/s, copied at 9.00 GB/s",
        " matrix products, rows 1 8 64 512 4096",
        " bfloat16 10.0 GFLOP/s 34.6 GFLOP/s 120 GFLOP/s 400 GFLOP/s 400 GFLOP/s",
        " prefill attention, tokens 64 512 2048",
        " bfloat16 30.0 GFLOP/s 50.0 GFLOP/s 50.0 GFLOP/s",
        " decode attention, heads a key 1 4 8",
        " bfloat16 8.00 GB/s 5.04 GB/s 4.00 GB/s",
        " a layer costs 0.40 ms however few the rows, and its rows pass at 500 MB/s beside products and attention",
        "means a 7B model in bfloat16 needs 13.5 GB a pass; this disk reads 2.60 GB/s, so 5.18 s a pass: "
        "batch at least 29 sequences",
        " a 70B model in bfloat16 needs 141 GB a pass; this disk reads 2.60 GB/s, so 54.3 s a pass: "
        "batch at least 29 sequences",
        "figures measured 2026-11-26, torch 2.13.0, 2 threads",
        "kept in /cache/machines/1.json; --fresh measures again",
        "stands on torch 2.13.0",
    ]


def test_columns_stand_below_each_other() -> None:
    table = [line for line in FOUND.lines() if re.search("bfloat16  |products, rows|attention, (tokens|heads)", line)]
    ends = [{match.end() for match in re.finditer(r"\S( \S+/s)?(?=  |$)", line)} for line in table]
    first = {match.end() for match in re.finditer(r"\d(?=  |$)", table[0])}
    assert len(table) == 6 and all({end for end in row if end > 45} <= first for row in ends)


def test_at_the_batch_that_is_named_computing_takes_as_long_as_reading_and_below_it_less() -> None:
    seconds, carried = seconds_a_pass(MACHINE, 141 * 10**9)
    assert seconds == pytest.approx(141e9 / 2.6e9) and carried == "this disk reads 2.60 GB/s"
    batch = balanced_batch(HOST, "bfloat16", 141 * 10**9, seconds)
    assert batch is not None

    def computing(sequences: int) -> float:
        return 141e9 * sequences / HOST.matmul["bfloat16"].at(sequences)

    assert computing(batch - 1) < seconds <= computing(batch)


def test_a_slow_link_is_what_a_pass_waits_for() -> None:
    machine = machine_named("rtx3090", bus="2GB/s", disk_rate=7e9)
    assert any(
        "the link to the device carries 2.00 GB/s, so 1 min 11 s a pass" in line for line in machine_lines(machine)
    )


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (replace(MACHINE, disk=replace(DISK, rate=0.0)), "how fast it can be read was not measured"),
        (replace(MACHINE, disk=replace(DISK, rate=1e12)), "computing takes longer even for one sequence (1.35 s)"),
        (
            replace(MACHINE, host=replace(HOST, matmul={"bfloat16": RateCurve(((1, 1e16),))})),
            "batch as many sequences as fit",
        ),
        (replace(MACHINE, sources={BUSY_SOURCE: "the load was 9.0"}), "warning  the load was 9.0"),
    ],
)
def test_what_else_can_be_said(machine: Machine, words: str) -> None:
    assert words in "\n".join(machine_lines(machine))


def test_a_disk_that_was_not_measured_says_why() -> None:
    unread = DiskProfile(0.0, 1, 1, True, "not measured: a sample takes 537 MB, and twice that should be free")
    assert DiskCheck("/models", 10**6, unread).lines() == [
        "disk     /models: 1.00 MB free, not measured: a sample takes 537 MB, and twice that should be free"
    ]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder .*nowhere"):
        job.checkup([tmp_path, tmp_path / "nowhere"], False, lambda *_: None)


@pytest.mark.usefixtures("asked")
def test_a_control_group_that_allows_more_than_there_is_limits_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(job, "control_group_rooms", lambda: [1 << 63])
    found = job.checkup([tmp_path], False, lambda *_: None)
    assert found.control_group is None
    assert "no control group limits it" in found.lines()[2]


def test_without_a_folder_the_hubs_cache_is_measured_unless_it_is_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(job, "_filesystem", lambda folder: "ext4")
    assert job.usual_folder() == tmp_path
    monkeypatch.setattr(job, "_filesystem", lambda folder: "tmpfs")
    assert job.usual_folder() == Path.cwd()
    monkeypatch.setattr(job, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert job.usual_folder() == Path.cwd()


def test_doctor_speaks_to_people_and_to_machines(asked: list[tuple[list[Path], bool]], tmp_path: Path) -> None:
    told = doctor(str(tmp_path), "--offload-dir", str(tmp_path), "--fresh")
    assert (told.exit_code, asked) == (0, [([tmp_path, tmp_path], True)])
    assert told.stdout.count(f"disk     {tmp_path}: 2.60 GB/s read") == 2
    step = {"event": "progress", "phase": "measure", "step": "reading", "done": 1, "total": 2}
    assert json.loads(told.stderr) == step
    found = json.loads(doctor(str(tmp_path), "--json").stdout)
    assert asked[-1] == ([tmp_path], False)
    assert found["cores"] >= 1
    assert found["disks"][0]["profile"]["rate"] == 2.6e9
    assert machine_from_json(found["machine"]) == MACHINE


@pytest.mark.usefixtures("asked")
def test_on_a_terminal_measuring_is_a_bar_and_no_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.cli.measuring.stderr_is_terminal", lambda: True)
    told = doctor(str(tmp_path))
    assert told.exit_code == 0 and "event" not in told.stderr


def test_doctor_tells_of_another_machine_without_measuring(asked: list[tuple[list[Path], bool]]) -> None:
    told = doctor("--machine", "l4", "--bus", "pcie4x8", "--disk-rate", "7GB/s")
    assert (told.exit_code, told.stderr, asked) == (0, "", [])
    assert "device   NVIDIA L4" in told.stdout and "this disk reads 7.00 GB/s" in told.stdout
    kept = json.loads(doctor("--machine", "l4", "--json").stdout)
    assert machine_from_json(kept).device == machine_named("l4").device


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--machine", "l5"), "error: --machine 'l5' is not known; did you mean l4"),
        (("--machine", "l4", "--fresh"), "error: --fresh measures this machine, and --machine l4 names another"),
        (("--bus", "pcie4x8"), "error: --bus pcie4x8 has no effect on a machine that is measured"),
        (("--plot", "roof.txt"), "error: --plot roof.txt is no picture that can be drawn; end its name in .png"),
        (("--plot", "none/roof.png"), "error: --plot none/roof.png: there is no folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(
    asked: list[tuple[list[Path], bool]], arguments: tuple[str, ...], message: str
) -> None:
    told = doctor(*arguments)
    assert told.exit_code == 2 and told.stderr.startswith(message) and told.stderr.count("\n") == 1
    assert asked == []


def test_a_picture_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(late.importlib.util, "find_spec", lambda name: None)
    told = doctor("--machine", "l4", "--plot", str(tmp_path / "roof.png"))
    assert (told.exit_code, told.stderr) == (
        2,
        "error: --plot needs matplotlib, which is not installed; pip install 'windlass[plot]'\n",
    )


@pytest.mark.parametrize(("name", "begins"), [("roof.png", b"\x89PNG"), ("roof.svg", b"<?xml"), ("roof.pdf", b"%PDF")])
@pytest.mark.parametrize("machine", ["cpu", "h100"])
def test_a_roofline_is_drawn_in_the_format_of_its_name(tmp_path: Path, name: str, begins: bytes, machine: str) -> None:
    pytest.importorskip("matplotlib")
    told = doctor("--machine", machine, "--plot", str(tmp_path / name))
    assert told.exit_code == 0 and f"picture  {tmp_path / name}" in told.stdout
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_roofline_names_its_slopes_and_the_models_operations(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text as text
        doctor("--machine", "h100", "--plot", str(tmp_path / "roof.svg"))
    drawn = (tmp_path / "roof.svg").read_text()
    for text in ("device memory 2.85 TB/s", "host memory", "link to the device", "disk 3.20 GB/s", "512 tokens"):
        assert text in drawn
