"""A machine is measured once and kept; what was kept counts until the machine, its disk or torch is another."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from machines import DISK, MACHINE
from windlass.engine.disk_rate import best_disk
from windlass.engine.layer_rates import measure_layers
from windlass.engine.target import HOST
from windlass.errors import StorageError
from windlass.facts import machine_store
from windlass.facts.machine import BUSY_SOURCE, Machine
from windlass.facts.machine_store import kept_machine, profile_path
from windlass.jobs import machine_profile as job
from windlass.jobs.machine_profile import Effort, known_machine, known_machines, measure_machine
from windlass.kernels.attention_rates import measure_decode_attention, measure_prefill_attention
from windlass.memory.disk_sample import disk_sample
from windlass.memory.product_rates import measure_products
from windlass.units import MIB

LEAST = Effort(
    shapes=((64, 32), (32, 64)), rows=(1, 4), prompts=(16,), groups=(1, 2), cold_bytes=MIB, sequences=1,
    prompt_rows=16, seconds=0.0,
    disk_seconds=0.05, sample=8 * MIB, width=64, layer_rows=16, passes=1,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str]:
    """Notes what is measured in place of measuring it: all of a machine, or one disk."""
    done: list[str] = []

    def whole(folder: Path, **_: Any) -> Machine:
        done.append("machine")
        return replace(MACHINE, disk_write=float(len(done)))

    def disk(*_: Any) -> tuple[Any, float, dict[str, str]]:
        done.append("disk")
        return replace(DISK, rate=1e9), float(len(done)), {"disk": "another disk"}

    monkeypatch.setattr(job, "measure_machine", whole)
    monkeypatch.setattr(job, "_disk", disk)
    return done


def test_a_machine_is_measured_once_and_again_when_asked(measured: list[str], tmp_path: Path) -> None:
    first = known_machine(tmp_path)
    assert known_machine(tmp_path) == first and measured == ["machine"]
    again = known_machine(tmp_path, fresh=True)
    assert measured == ["machine", "machine"] and again != first
    assert known_machine(tmp_path) == again == kept_machine(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("usable_cores", lambda: 3), ("cpu_name", lambda: "another"), ("num_threads", lambda: 7),
     ("metadata", type("Other", (), {"version": staticmethod(lambda name: "99.0")}))],
)  # fmt: skip
def test_another_machine_or_torch_is_measured_anew(
    measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    known_machine(tmp_path)
    monkeypatch.setattr(machine_store, name, value)
    known_machine(tmp_path)
    assert measured == ["machine", "machine"]


def test_of_a_known_machine_only_another_disk_is_measured(
    measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = known_machine(tmp_path)
    monkeypatch.setattr(machine_store, "disk_identity", lambda folder: {"mount": "/elsewhere", "device": 9})
    second = known_machine(tmp_path)
    assert measured == ["machine", "disk"]
    assert (second.host, second.disk.rate, second.sources["disk"]) == (first.host, 1e9, "another disk")
    assert "disk" in first.corrections and "disk" not in second.corrections, "runs have shown nothing of this disk"
    assert known_machine(tmp_path) == second and len(measured) == 2


def test_two_folders_share_everything_but_the_disk(measured: list[str], tmp_path: Path) -> None:
    one, two = known_machines([tmp_path, tmp_path.parent], fresh=True)
    assert measured == ["machine", "disk"] and one.host == two.host


@pytest.mark.usefixtures("measured")
def test_a_kept_profile_that_is_damaged_is_measured_again(tmp_path: Path) -> None:
    found = known_machine(tmp_path)
    profile_path(tmp_path).write_text("{")
    assert kept_machine(tmp_path) is None
    assert known_machine(tmp_path).host == found.host


@pytest.mark.usefixtures("measured")
def test_a_cache_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert known_machine(tmp_path).host == MACHINE.host


def test_measuring_finds_every_rate_and_says_what_it_measured(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    machine = measure_machine(tmp_path, effort=LEAST, on_progress=lambda *step: steps.append(step))
    for curves in (machine.host.matmul, machine.host.decode_attention, machine.host.prefill_attention):
        assert {"bfloat16", "float32"} <= set(curves)
        assert all(rate > 0 for curve in curves.values() for _, rate in curve.points)
    assert [rows for rows, _ in machine.host.matmul["float32"].points] == [1, 4]
    assert {name: len(curve.points) for name, curve in machine.host.packed_matmul.items()} == {"int4": 1, "int8": 1}
    assert machine.disk.rate > 0 and machine.disk_write > 0 and machine.process_bytes > 50 * MIB
    assert machine.host.step_seconds > 0 and machine.host.row_rate > 0 and machine.host.copy_rate > 0
    assert {"disk", "disk_write", "matmul", "row_rate"} <= set(machine.sources)
    assert [done for _, done, _ in steps] == list(range(steps[0][2])), "progress counts to its end, a step at a time"
    assert list(tmp_path.iterdir()) == [], "the sample is gone"


@pytest.mark.parametrize(("others", "warned"), [(0.0, False), (50.0, True)])
def test_a_machine_that_others_use_is_measured_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, others: float, warned: bool
) -> None:
    monkeypatch.setattr(job.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(job, "_busy_seconds", lambda: 100.0)
    monkeypatch.setattr(job, "time", SimpleNamespace(perf_counter=lambda: 0.0, process_time=lambda: 0.0))
    neighbours = job._Neighbours()
    monkeypatch.setattr(job, "_busy_seconds", lambda: 110.0 + others)
    monkeypatch.setattr(job, "time", SimpleNamespace(perf_counter=lambda: 10.0, process_time=lambda: 10.0))
    remark = neighbours.remark()
    assert (BUSY_SOURCE in remark) == warned
    assert not warned or "kept 5.0 cores busy" in remark[BUSY_SOURCE]


def test_a_folder_that_may_not_be_written_is_read_where_a_checkpoint_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(8 * MIB))

    def refuse(*_: Any) -> Any:
        raise StorageError("cannot write a sample to there: Read-only file system; name another folder")

    monkeypatch.setattr(job, "disk_sample", refuse)
    disk, write, sources = job._disk(tmp_path, LEAST, job._Steps(lambda *_: None, 2))
    assert disk.rate > 0 and write == 0.0
    assert "Read-only file system" in sources["disk_write"] and "the checkpoint" in sources["disk"]


def test_a_disk_without_room_for_a_sample_is_not_measured_and_says_so(tmp_path: Path) -> None:
    disk, write, sources = job._disk(tmp_path, replace(LEAST, sample=1 << 60), job._Steps(lambda *_: None, 2))
    assert (disk.rate, write) == (0.0, 0.0)
    assert "not measured: a sample takes" in disk.reason == sources["disk"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder .*nowhere; name the folder of a model"):
        measure_machine(tmp_path / "nowhere")


def test_a_sample_holds_what_was_asked_and_is_removed_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), disk_sample(tmp_path, 3 * MIB + 4096) as sample:
        assert sample.file.stat().st_size == sample.nbytes == 3 * MIB + 4096
        assert len(set(sample.file.read_bytes()[:4096])) > 200, "a disk that compresses must not flatter itself"
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_slow_machine_ends_its_curves_earlier() -> None:
    curve = measure_products(torch.float32, CPU, ((8, 8),), (1, 2, 4), seconds=0.0, most=-1.0)
    assert [rows for rows, _ in curve.points] == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_measured_on_what_it_was_asked_for(dtype: torch.dtype) -> None:
    decode = measure_decode_attention(dtype, CPU, (1, 4), 2, 70, 2, 16, seconds=0.0, cold_bytes=MIB)
    assert [group for group, _ in decode.points] == [1, 4] and decode.best > 0
    prefill = measure_prefill_attention(dtype, CPU, (8, 70), 4, 2, 16, rows=16, seconds=0.0)
    assert [length for length, _ in prefill.points] == [8, 70] and prefill.best > 0


def test_layers_are_run_by_the_engine_and_leave_no_thread() -> None:
    rates = measure_layers(HOST, torch.float32, width=64, rows=16, passes=1)
    assert 0 < rates.step_seconds < 60 and rates.row_rate > 0


@pytest.mark.usefixtures("measured")
def test_the_reader_uses_the_setting_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_machine(tmp_path)
    monkeypatch.setattr("windlass.engine.disk_rate.measure_disk", lambda *_, **__: pytest.fail("measured again"))
    streams = SimpleNamespace(host_bill=SimpleNamespace(ring=1))
    assert best_disk(tmp_path, streams) == DISK
