"""A model of a known shape whose weights are made up: in memory where the plan keeps them, in files where it streams.

Files are written for one plan and only for what it leaves on disk, below a folder that somebody named; they go when the
model is closed.
"""

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Sequence
from pathlib import Path

from windlass.engine.unwritten_files import files_on_disk
from windlass.errors import StorageError, UsageError
from windlass.facts.plan import Plan
from windlass.facts.shape import Shape
from windlass.facts.weight_group import WeightGroup
from windlass.memory.made_weights import MadeWeights
from windlass.memory.page_file import free_bytes
from windlass.units import MIB, format_bytes

# What a filesystem keeps for itself beside the files.
_MARGIN = 64 * MIB


class MadeModel:
    """`folder` is where files would lie; nothing is there before `store`. `offload_dir` None allows no file.

    `to` is the format that matrices are packed in.
    """

    def __init__(
        self, shape: Shape, offload_dir: Path | None, folder: Path, weights: MadeWeights, to: str | None = None
    ) -> None:
        self.shape, self.folder, self.weights, self.to = shape, folder, weights, to
        self._offload_dir = offload_dir
        self._stored: set[str] = set()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def holds(self, file: str) -> bool:
        """Whether the bytes of `file` are made and not read."""
        return file not in self._stored

    def fill(self, file: str, offset: int, target: memoryview) -> None:
        """See MadeWeights."""
        self.weights.fill(file, offset, target)

    def lines(self, groups: Sequence[WeightGroup], plan: Plan) -> list[str]:
        """What is made and what is written, for people."""
        total = sum(fact.nbytes for fact in self.weights.facts.values())
        packed = f" in {self.to}" if self.to else ""
        lines = [
            f"shape    {self.shape.name}, {format_bytes(total)} of random weights{packed}: one block of numbers, drawn "
            "once, cut from many places"
        ]
        nbytes = self._nbytes(files_on_disk(groups, plan))
        if nbytes and self._offload_dir is not None:
            lines.append(f"files    {format_bytes(nbytes)} written to {self.folder} and removed at the end")
        return lines

    def check(self, groups: Sequence[WeightGroup], plan: Plan) -> None:
        """Whether what `plan` leaves on disk may be written and has room. Raises UsageError and StorageError."""
        wanted = files_on_disk(groups, plan)
        if wanted and self._offload_dir is None:
            raise UsageError(
                f"{format_bytes(self._nbytes(wanted))} of the weights of {self.shape.name} do not fit in memory and "
                "would stream from disk; name a folder on a fast disk with --offload-dir, or raise --host-memory"
            )
        self._refuse_without_room(wanted - self._stored)

    def store(self, groups: Sequence[WeightGroup], plan: Plan) -> None:
        """Writes what `plan` leaves on disk and removes what it does not. Raises UsageError and StorageError."""
        self._stored = {file for file in self._stored if Path(file).is_file()}
        self.check(groups, plan)
        wanted = files_on_disk(groups, plan)
        if not wanted:
            self.remove()
            return
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be made: {error.strerror}; make --offload-dir {self._offload_dir} again and "
                "allow it to be written, or name another one"
            ) from error
        for file in sorted(self._stored - wanted):
            Path(file).unlink(missing_ok=True)
            self._stored.remove(file)
        for file in sorted(wanted - self._stored):
            self.weights.write(file)
            self._stored.add(file)

    def remove(self) -> None:
        """Removes every file. May be called twice."""
        self._stored.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _refuse_without_room(self, files: set[str]) -> None:
        needed, free = self._nbytes(files), free_bytes(self.folder.parent)
        if needed and needed + _MARGIN > free:
            raise StorageError(
                f"{self.shape.name} streams {format_bytes(needed)} from files that would be written to "
                f"{self.folder.parent}, where {format_bytes(free)} are free; nothing was written: name a folder on a "
                "larger disk with --offload-dir, or raise --host-memory, or take a smaller shape"
            )

    def _nbytes(self, files: set[str]) -> int:
        return sum(self.weights.facts[file].end for file in files)


def made_folder(shape: Shape, offload_dir: Path | None) -> Path:
    """A name of its own below the folder that was named; nothing is made. Raises UsageError for one that is missing."""
    if offload_dir is not None and not offload_dir.is_dir():
        raise UsageError(f"--offload-dir {offload_dir} is no folder; make it first, or name another")
    place = offload_dir.absolute() if offload_dir is not None else Path(tempfile.gettempdir())
    return place / f"windlass-{shape.name}-{uuid.uuid4().hex[:8]}"
