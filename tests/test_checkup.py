"""The doctor tells what the machine has in plain words; what it cannot measure it says with the reason."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from windlass.cli.main import app
from windlass.errors import StorageError
from windlass.facts.checkup import Checkup, DiskCheck
from windlass.facts.disk_profile import DiskProfile
from windlass.jobs import checkup as job
from windlass.units import GIB, MIB

PROFILE = DiskProfile(2.65e9, 8 * MIB, 4, True, "direct I/O: the filesystem takes O_DIRECT")
FOUND = Checkup(
    cores=2, cpu="AMD EPYC", cpu_features=("avx512f", "avx512_bf16"), memory_total=24 * GIB, memory_available=16 * GIB,
    control_group=17 * GIB, copy_rate=2e10, matmul_rates={"bfloat16": 4.0e11},
    attention="plain torch, since there is no C compiler", devices=(),
    disks=(DiskCheck("/models", 75 * 10**9, PROFILE),), versions={"torch": "2.13.0"},
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Rates are not measured; the paths that would have been read are noted."""
    read: list[Path] = []

    def measure_disk(path: Path) -> DiskProfile:
        read.append(path)
        return PROFILE

    monkeypatch.setattr(job, "measure_disk", measure_disk)
    monkeypatch.setattr(job, "measure_copy", lambda: 2e10)
    monkeypatch.setattr(job, "measure_matmul", lambda dtype, rows: 4e11)
    monkeypatch.setattr(job, "_SAMPLE_BYTES", 8 * MIB)
    return read


def test_people_read_one_fact_a_line() -> None:
    assert FOUND.lines() == [
        "cpu      AMD EPYC, 2 cores",
        "         bfloat16 runs at full speed (avx512f, avx512_bf16)",
        "memory   16.0 GiB may be taken of 24.0 GiB; a control group leaves 17.0 GiB",
        "         copies at 20.0 GB/s",
        "device   none but the cpu",
        "disk     /models: 2.65 GB/s read, best with 4 reads of 8.00 MiB in flight, 75.0 GB free",
        "         direct I/O: the filesystem takes O_DIRECT",
        "matmul   400 GFLOP/s bfloat16",
        "decode   attends by plain torch, since there is no C compiler",
        "stands   on torch 2.13.0",
    ]


def test_the_checkpoint_of_a_folder_is_what_its_disk_is_measured_with(quick: list[Path], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(8 * MIB))
    assert job.check_disk(tmp_path).profile == PROFILE
    assert quick == [tmp_path]


def test_without_a_checkpoint_a_sample_is_written_and_removed(quick: list[Path], tmp_path: Path) -> None:
    assert job.check_disk(tmp_path).profile == PROFILE
    assert quick[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_a_sample_is_not_measured_and_says_so(
    quick: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.shutil, "disk_usage", lambda _: SimpleNamespace(free=MIB))
    found = job.check_disk(tmp_path)
    assert "not measured: a sample takes" in found.lines()[0]
    assert quick == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder .*nowhere"):
        job.check_disk(tmp_path / "nowhere")


@pytest.mark.usefixtures("quick")
def test_a_control_group_that_allows_more_than_there_is_limits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "control_group_rooms", lambda: [1 << 63])
    found = job.checkup([])
    assert found.control_group is None
    assert "no control group limits it" in found.lines()[2]


@pytest.mark.usefixtures("quick")
def test_doctor_speaks_to_people_and_to_machines(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["doctor", str(tmp_path), "--offload-dir", str(tmp_path)])
    assert told.exit_code == 0
    assert told.stdout.count(f"disk     {tmp_path}: 2.65 GB/s read") == 2
    found = json.loads(CliRunner().invoke(app, ["doctor", str(tmp_path), "--json"]).stdout)
    assert found["cores"] >= 1
    assert found["disks"][0]["profile"]["rate"] == 2.65e9
