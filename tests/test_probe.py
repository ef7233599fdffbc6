"""A probe measures what is there, in bounded time and memory, and says what it could not do and why."""

import errno
import os
from pathlib import Path

import pytest
import torch

from windlass.errors import StorageError
from windlass.facts.disk_profile import DiskProfile
from windlass.memory import disk, probe
from windlass.memory.disk import O_DIRECT
from windlass.memory.probe import CHUNKS, DEPTHS, measure_disk, measure_matmul
from windlass.units import MIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(os.urandom(9 * MIB + 123))
    return tmp_path


def test_the_profile_is_one_of_the_settings_and_has_a_rate(folder: Path) -> None:
    profile = measure_disk(folder, seconds=0.1)
    assert profile.rate > 0 and profile.chunk in CHUNKS and profile.depth in DEPTHS
    assert profile.chunk * profile.depth <= 18 * MIB + 246
    assert profile.reason.startswith("direct I/O" if profile.direct else "buffered reads")


def test_one_file_can_be_measured(folder: Path) -> None:
    assert measure_disk(folder / "a.safetensors", seconds=0.05).rate > 0


def test_each_setting_reads_no_more_than_it_may(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    class Noted(probe.DiskReader):
        def close(self) -> None:
            read.append(self.bytes_read)
            super().close()

    monkeypatch.setattr(probe, "DiskReader", Noted)
    measure_disk(folder, seconds=100.0, most=4 * MIB)
    assert len(read) == 1 + 2 * probe.ROUNDS and max(read) <= 4 * MIB


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({(8, 8): 98, (64, 1): 100, (8, 4): 99, (64, 8): 100}, (8, 8)),
        ({(8, 8): 88, (64, 1): 100, (8, 32): 98, (8, 4): 99}, (8, 32)),
        ({(8, 8): 50, (64, 1): 100, (8, 4): 98}, (8, 4)),
    ],
)
def test_among_settings_as_good_as_the_best_the_usual_one_is_chosen_at_the_best_rate(
    rates: dict[tuple[int, int], float], chosen: tuple[int, int]
) -> None:
    profiles = [DiskProfile(rate, chunk * MIB, depth, True, "") for (chunk, depth), rate in rates.items()]
    assert probe._choose(profiles) == DiskProfile(100, chosen[0] * MIB, chosen[1], True, "")


def test_files_too_small_to_measure_give_no_rate_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    profile = measure_disk(tmp_path)
    assert profile.rate == 0.0 and profile.chunk > 0 and profile.depth > 0
    assert "not measured" in profile.reason and "1.00 MiB are needed" in profile.reason


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no file to measure the disk with; name a checkpoint or a big file"):
        measure_disk(tmp_path)


@pytest.mark.skipif(not O_DIRECT, reason="this platform has no O_DIRECT")
def test_a_refused_direct_read_is_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: str, flags: int) -> int:
        if flags & O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, flags)

    monkeypatch.setattr(disk.os, "open", refuse)
    profile = measure_disk(folder, seconds=0.05)
    assert not profile.direct and profile.rate > 0
    assert profile.reason == f"buffered reads: the filesystem of {folder} refuses O_DIRECT"


def test_a_platform_without_direct_reads_is_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "O_DIRECT", 0)
    profile = measure_disk(folder, seconds=0.05)
    assert not profile.direct and "has no O_DIRECT" in profile.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrix_products_have_a_rate(dtype: torch.dtype) -> None:
    assert measure_matmul(dtype, rows=4, size=64, seconds=0.0) > 0
