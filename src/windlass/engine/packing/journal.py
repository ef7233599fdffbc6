"""What of a packing job is safely on disk: a few lines beside the files, so that a killed job goes on where it was.

The first line says what is being made of what. Each later one says how many pieces, from the first on, are durable;
it is added when their bytes have been flushed to the disk. A line that was cut short counts for nothing.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import UsageError
from windlass.facts.packed_files import BEGUN

IMPORTANCE = "windlass-importance.safetensors"
"""What a calibration found, where there was one."""


@dataclass(frozen=True, slots=True)
class Durable:
    """`pieces` from the first on are on disk; `error` and `power` are the sums over them (see quantiser.Packed)."""

    pieces: int = 0
    error: float = 0.0
    power: float = 0.0


def begun(folder: Path) -> bool:
    """Whether a packing job has begun in `folder`."""
    return (folder / BEGUN).is_file()


def begin(folder: Path, job: Mapping[str, object]) -> None:
    """Writes the first line: only then is the folder's work one to go on with."""
    text = json.dumps(job) + "\n"
    beginning = folder / f"{BEGUN}.new"
    with open(beginning, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beginning, folder / BEGUN)


def note(folder: Path, durable: Durable) -> None:
    """Adds a line; what it speaks of must be on disk already."""
    line = {"pieces": durable.pieces, "error": durable.error, "power": durable.power}
    with open(folder / BEGUN, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path, job: Mapping[str, object]) -> Durable:
    """How far the job got. Raises UsageError where what lies there was begun as another job."""
    lines = [_value(line) for line in (folder / BEGUN).read_text(encoding="utf-8").splitlines()]
    first = lines[0] if lines else {}
    for name, value in job.items():
        if first.get(name) != value:
            raise UsageError(
                f"{folder} is the beginning of another job: its {name} was {first.get(name)!r} and is now {value!r}; "
                "give what was given then, remove that folder to begin anew, or name another --output"
            )
    found = Durable()
    for line in lines[1:]:
        found = _durable(line) or found
    return found


def finish(folder: Path) -> None:
    """Nothing is left to go on with."""
    (folder / IMPORTANCE).unlink(missing_ok=True)
    (folder / BEGUN).unlink()


def _durable(line: Mapping[str, object]) -> Durable | None:
    """What a line says, if it says that and no more."""
    match line:
        case {"pieces": int(pieces), "error": float(error), "power": float(power)} if len(line) == 3:
            return Durable(pieces, error, power)
    return None


def _value(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
