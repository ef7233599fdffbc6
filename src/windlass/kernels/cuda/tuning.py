"""Which tile is fastest for a kind of product, measured when it is first met and kept in the cache folder.

Products of nearly the same size share an entry, so that a model is tuned in seconds and later runs use what is kept.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from windlass.kernels.cuda.tile import Tile


class Tuning:
    """The fastest tile of each kind of product, in memory and in the file `path`.

    `measure` runs what it is given and returns seconds; `failures` are what a tile may raise that the device cannot
    run. A file that cannot be read or written costs measuring again, no more.
    """

    def __init__(
        self,
        path: Path,
        measure: Callable[[Callable[[], object]], float],
        failures: tuple[type[Exception], ...],
    ) -> None:
        self._path, self._measure, self._failures = path, measure, failures
        self._kept = _read(path)

    def best(self, key: str, tiles: Sequence[Tile], run: Callable[[Tile], object]) -> Tile:
        """One of `tiles`. Raises what the last tile raised if none can run.

        What is kept does not say how the columns are shared: that follows from the exact size.
        """
        found = next((tile for tile in tiles if self._kept.get(key) == _form(tile)), None)
        return found or self._tuned(key, tiles, run)

    def _tuned(self, key: str, tiles: Sequence[Tile], run: Callable[[Tile], object]) -> Tile:
        times: list[tuple[float, int]] = []
        for number, tile in enumerate(tiles):
            try:
                times.append((self._measure(partial(run, tile)), number))
            except self._failures:
                if number == len(tiles) - 1 and not times:
                    raise
        best = tiles[min(times)[1]]
        self._kept[key] = _form(best)
        _write(self._path, _read(self._path) | self._kept)
        return best


def _form(tile: Tile) -> dict[str, int]:
    return {name: value for name, value in asdict(tile).items() if name != "shares"}


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(path: Path, kept: dict[str, dict[str, int]]) -> None:
    """By a rename: several processes may write at once."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
