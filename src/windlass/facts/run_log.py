"""The runs of this machine, one JSON line each in the cache folder: what corrections of its profile are made from."""

import json
import os
import tempfile
from pathlib import Path

from windlass.errors import StorageError
from windlass.facts.kept_run import KeptRun, read_kept_run

# Runs that are kept.
MOST = 1000


class RunLog:
    """The file `runs/runs.jsonl` below `folder`. Several processes may append at once."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "runs" / "runs.jsonl"

    def append(self, run: KeptRun) -> None:
        """Adds a line in one write, and drops the oldest once there are a tenth more than MOST. Raises StorageError.

        A line that another process adds while the oldest are dropped may be lost; no line is ever torn.
        """
        line = (json.dumps(run.as_dict()) + "\n").encode()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
            self._drop_oldest()
        except OSError as error:
            raise StorageError(
                f"{self.file} cannot be written: {error.strerror}; the run was not kept, so later forecasts do not "
                "learn from it; make the folder writable, or name another with WINDLASS_CACHE"
            ) from error

    def last(self, count: int = MOST) -> list[KeptRun]:
        """The latest runs, oldest first; none where nothing was kept or it cannot be read."""
        try:
            lines = self.file.read_bytes().splitlines()[-count:]
        except OSError:
            return []
        runs = [read_kept_run(_parsed(line)) for line in lines]
        return [run for run in runs if run is not None]

    def _drop_oldest(self) -> None:
        lines = self.file.read_bytes().splitlines(keepends=True)
        if len(lines) <= MOST + MOST // 10:
            return
        descriptor, name = tempfile.mkstemp(prefix=".runs-", dir=self.file.parent)
        with os.fdopen(descriptor, "wb") as kept:
            kept.writelines(lines[-MOST:])
        os.replace(name, self.file)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
