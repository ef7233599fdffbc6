"""The folder that a packing job fills: checked before, worked in under another name, and given its name at the end."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from windlass.engine.packing.journal import Durable, begin, begun, finish, read
from windlass.engine.packing.work import PackingWork
from windlass.errors import StorageError, UsageError
from windlass.facts.checkpoint_facts import INDEX_NAME
from windlass.facts.config_values import read_config_values
from windlass.facts.packed_checkpoint import quantisation_of
from windlass.facts.packed_files import index_json
from windlass.model.hub import SMALL_FILES
from windlass.units import format_bytes


@contextmanager
def worked_in(work: PackingWork) -> Iterator[Durable]:
    """Makes the folder to work in, or finds how far an earlier job got, and keeps other processes out of it.

    Raises UsageError for a target that is taken, StorageError for a folder that is in use or that cannot be.
    """
    durable = _ready(work)
    descriptor = os.open(work.partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield durable
    except BlockingIOError as error:
        raise StorageError(
            f"another process is packing into {work.partial}; wait for it to end, then give the same command again"
        ) from error
    finally:
        os.close(descriptor)


def _ready(work: PackingWork) -> Durable:
    """Raises UsageError, StorageError."""
    _refuse_taken(work)
    if begun(work.partial):
        durable = read(work.partial, work.identity)
        _check_room(work, sum(piece.target_nbytes for piece in work.pieces[durable.pieces :]))
        return durable
    if work.partial.exists() and any(work.partial.iterdir()):
        raise UsageError(
            f"{work.partial} is in the way and no packing job of Windlass; remove it, or name another --output"
        )
    _check_room(work, work.nbytes)
    try:
        work.partial.mkdir(exist_ok=True)
        begin(work.partial, work.identity)
    except OSError as error:
        raise StorageError(f"{work.partial} cannot be made: {error.strerror}; name another --output") from error
    return Durable()


def _refuse_taken(work: PackingWork) -> None:
    """Raises UsageError where something is at the target, and StorageError where nothing can be."""
    target = work.target
    if not target.parent.is_dir():
        raise StorageError(f"there is no folder {target.parent} for {target.name}; make it, or name another --output")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    found = finished(target)
    if found is None:
        raise UsageError(f"{target} is there and no model that Windlass packed; name another --output, or remove it")
    own = work.config["quantization_config"]
    same = [name for name in ("source", "bits", "calibration") if found.get(name) == own[name]]
    if len(same) == 3:
        raise UsageError(f"{target} is finished: {work.to} of this very model; run it, or remove it to pack it again")
    raise UsageError(f"{target} is a packed model of {_changed(found, own, same)}; name another --output, or remove it")


def _changed(found: Mapping[str, object], own: Mapping[str, object], same: Sequence[str]) -> str:
    """In what the model that is there differs from the one that is to be made, for people."""
    if "source" not in same:
        return "another input"
    differing = [] if "bits" in same else [f"{found.get('bits')} bits and not {own['bits']}"]
    if "calibration" not in same:
        differing.append(
            "another calibration" if own["calibration"] and found.get("calibration")
            else "a calibration and not without one" if found.get("calibration")
            else "no calibration and not with one"
        )  # fmt: skip
    return ", ".join(differing)


def finished(target: Path) -> Mapping[str, object] | None:
    """What a finished model of ours says of its packing; None for anything else."""
    if not (target / "config.json").is_file():
        return None
    settings = quantisation_of(read_config_values(target))
    return settings if settings is not None and settings.get("quant_method") == "windlass" else None


def _check_room(work: PackingWork, needed: int) -> None:
    free = shutil.disk_usage(work.target.parent).free
    # What is laid out and not yet written takes no room.
    if needed > free:
        raise StorageError(
            f"{work.to} of {work.source} needs {format_bytes(needed)} more in {work.target.parent}, where "
            f"{format_bytes(free)} are free; free {format_bytes(needed - free)} there, or take another --output"
        )


def complete(work: PackingWork, done: Durable) -> None:
    """Adds the small files and gives the folder its name, once all of it is on disk. Raises StorageError."""
    assert done.pieces == len(work.pieces), f"{done.pieces} of {len(work.pieces)} pieces are done"
    folder = work.partial
    try:
        for path in _small_files(work.source):
            shutil.copyfile(path, folder / path.name)
        if len(work.files) > 1:
            _write_json(folder / INDEX_NAME, index_json(work.files))
        _write_json(folder / "config.json", work.config)
        finish(folder)
        _sync(folder)
        os.replace(folder, work.target)
        _sync(work.target.parent)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be completed: {error.strerror}; free some space, then give the same command again"
        ) from error


def _small_files(source: Path) -> Sequence[Path]:
    """Tokenizer, template and defaults of generation, as they are; files of transformers' own name the config apart."""
    return [
        path
        for path in sorted(source.iterdir())
        if path.is_file() and path.name != "config.json" and any(fnmatchcase(path.name, each) for each in SMALL_FILES)
    ]


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
