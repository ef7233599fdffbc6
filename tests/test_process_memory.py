"""The process's memory is what the system says, and control groups above it count at every level."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from windlass.memory.control_group import control_group_rooms
from windlass.memory.process_memory import (
    available_bytes,
    limit_malloc,
    peak_resident_bytes,
    resident_bytes,
    return_free_memory,
)
from windlass.units import GIB, MIB

SOURCE = Path(__file__).resolve().parent.parent / "src"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(program: str) -> list[str]:
    """The words that a process of its own prints."""
    environment, command = os.environ | {"PYTHONPATH": str(SOURCE)}, [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()


# In a process of its own: one that has run much else gives memory back, and takes some, whenever it likes.
TOUCHES_MEMORY = """
import gc, psutil, torch
from windlass.memory.arena import Arena
from windlass.memory.process_memory import peak_resident_bytes, reset_peak, resident_bytes
def touch(nbytes):
    arena = Arena(nbytes)
    arena.tensor(0, torch.uint8, (nbytes,)).fill_(1)
    return arena
torch.set_num_threads(1)
gc.disable()
touch(64 << 20).close()
print(resident_bytes(), psutil.Process().memory_info().rss, end=" ")
before = resident_bytes()
arena = touch(64 << 20)
print(resident_bytes() - before, end=" ")
arena.close()
reset = reset_peak()
before = resident_bytes()
touch(64 << 20).close()
print(peak_resident_bytes() - before, reset, end=" ")
reset_peak()
print(peak_resident_bytes() - resident_bytes())
"""


@pytest.fixture(scope="module")
def touched() -> list[str]:
    """Bytes held, as we and as psutil see it; by 64 MiB more; a peak above, whether it is reset, and above it then."""
    return run(TOUCHES_MEMORY)


def test_resident_memory_is_what_psutil_sees(touched: list[str]) -> None:
    assert abs(int(touched[0]) - int(touched[1])) < 8 * MIB


def test_touched_memory_shows_in_what_is_resident(touched: list[str]) -> None:
    assert 60 * MIB < int(touched[2]) < 72 * MIB


@linux
def test_the_peak_remembers_what_was_given_back_until_it_is_reset(touched: list[str]) -> None:
    assert int(touched[3]) > 60 * MIB
    if touched[4] == "False":
        pytest.skip("the system does not let the peak be reset")
    assert abs(int(touched[5])) < 8 * MIB


def test_available_memory_is_no_more_than_the_machine_has() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total


def version_1(root: Path, group: str, limit: int, use: int, cache: int = 0) -> None:
    folder = root / "memory" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{use}\n")
    (folder / "memory.stat").write_text(f"cache 7\ninactive_file 1\ntotal_inactive_file {cache}\n")


def version_2(root: Path, group: str, limit: str, use: int, cache: int = 0) -> None:
    folder = root / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{use}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")


def rooms(tmp_path: Path, cgroup: str) -> list[int]:
    (tmp_path / "cgroup").write_text(cgroup)
    return control_group_rooms(proc=tmp_path, root=tmp_path / "tree")


def test_version_2_groups_count_up_to_the_root(tmp_path: Path) -> None:
    version_2(tmp_path / "tree", "user/job", "max", GIB)
    version_2(tmp_path / "tree", "user", str(8 * GIB), 6 * GIB, cache=GIB)
    assert rooms(tmp_path, "0::/user/job\n") == [3 * GIB]


def test_version_1_groups_count_up_to_the_root(tmp_path: Path) -> None:
    version_1(tmp_path / "tree", "job", 4 * GIB, 2 * GIB, cache=GIB)
    version_1(tmp_path / "tree", "", 8 * GIB, 7 * GIB)
    assert rooms(tmp_path, "9:name=systemd:/\n4:cpu,memory:/job\n2:cpuset:/\n") == [3 * GIB, GIB]


def test_both_versions_together_count(tmp_path: Path) -> None:
    version_1(tmp_path / "tree", "job", 4 * GIB, GIB)
    version_2(tmp_path / "tree" / "unified", "job", str(2 * GIB), GIB)
    assert sorted(rooms(tmp_path, "4:memory:/job\n0::/job\n")) == [GIB, 3 * GIB]


@pytest.mark.parametrize("path", ["/docker/0123/not-mounted-here", "/../outside"])
def test_a_container_that_sees_only_its_own_group_finds_it_at_the_root(tmp_path: Path, path: str) -> None:
    version_2(tmp_path / "tree", "", str(2 * GIB), GIB)
    version_2(tmp_path, "outside", "5", 5)
    assert rooms(tmp_path, f"0::{path}\n") == [GIB]


def test_a_system_without_control_groups_has_no_such_limit(tmp_path: Path) -> None:
    assert control_group_rooms(proc=tmp_path / "none", root=tmp_path) == []


def told_by(program: str) -> list[str]:
    """What a process of its own prints; its first word is whether the C library is the GNU one."""
    told = run(program)
    if told[0] == "False":
        pytest.skip("the C library is not the GNU one")
    return told


FREES_A_BIG_BLOCK = """
import torch
from windlass.memory.process_memory import limit_malloc, resident_bytes, return_free_memory
print(limit_malloc(), end=" ")
blocks = [torch.ones(12 << 20) for _ in range(4)]
held = resident_bytes()
del blocks
print(held - resident_bytes() > 150 << 20, end=" ")
small = [torch.ones(1 << 18) for _ in range(100)]
keep = small[-1]
held = resident_bytes()
del small
print(return_free_memory(), held - resident_bytes() > 80 << 20)
"""


@linux
def test_freed_blocks_go_back_to_the_system() -> None:
    assert told_by(FREES_A_BIG_BLOCK) == ["True", "True", "True", "True"]


LEAVES_NO_HOLE = """
import torch
from windlass.memory.process_memory import big_blocks_outside_heap, limit_malloc
def heap():
    ends = next(line.split()[0].split("-") for line in open("/proc/self/maps") if "[heap]" in line)
    return (int(ends[1], 16) - int(ends[0], 16)) >> 20
def placeholders():
    kept = []
    for _ in range(40):
        block = torch.empty(8 << 20, dtype=torch.uint8)
        kept.append(torch.empty(40_000, dtype=torch.uint8))  # lands where the block was, and the next does not fit
        block = None
        kept.append(torch.empty(40_000, dtype=torch.uint8))
    return kept
print(limit_malloc(), end=" ")
before = heap()
with big_blocks_outside_heap():
    kept = placeholders()
print(heap() - before < 32, end=" ")
before = heap()
kept += placeholders()
print(heap() - before > 64)  # and now they are on the heap again
"""


@linux
def test_big_blocks_can_be_kept_out_of_the_heap() -> None:
    assert told_by(LEAVES_NO_HOLE) == ["True", "True", "True"]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.memory.process_memory.LINUX", False)
    assert not limit_malloc() and not return_free_memory()
    assert resident_bytes() > 0 and peak_resident_bytes() > 0
