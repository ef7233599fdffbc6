"""What the process's control groups still let it take: containers and batch systems set their limits there.

A limit holds for a group and all below it, so every group from the process's own up to the root is asked. Inside a
container the path may name groups that are not to be seen; those that are, count.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Version 1 has its memory files in a tree of their own, version 2 in the one tree: limit, use, reclaimable page cache.
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("", "memory.max", "memory.current", "inactive_file")


def control_group_rooms(proc: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that each limited control group above the process leaves; page cache it can drop counts as free."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return []
    rooms = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            rooms += _rooms(root, path, _V2) + _rooms(root / "unified", path, _V2)
        elif "memory" in controllers.split(","):
            rooms += _rooms(root, path, _V1)
    return rooms


def _rooms(root: Path, path: str, names: tuple[str, str, str, str]) -> list[int]:
    tree, limit_name, use_name, cache_name = names
    rooms = []
    for group in _upwards(root / tree, path):
        try:
            limit = (group / limit_name).read_text().strip()
            use = int((group / use_name).read_text())
            cache = _statistic(group / "memory.stat", cache_name)
        except OSError:
            continue
        if limit != "max":
            rooms.append(int(limit) - use + cache)
    return rooms


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it, up to the root of the tree."""
    inside = PurePosixPath(path).relative_to("/")
    # Seen from inside a container's namespace, a group above it is written with dots.
    if ".." not in inside.parts:
        yield root / inside
    yield from (root / parent for parent in inside.parents if ".." not in parent.parts)


def _statistic(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
