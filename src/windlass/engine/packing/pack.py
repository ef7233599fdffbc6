"""Makes a packed checkpoint of a dense one: in one pass, at the speed of the disk or the packer, in little memory.

Everything is written in a folder beside the one asked for, which takes its name when it is complete: nothing that
looks like a model is one by half. A job that was killed goes on from what is durable in that folder.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path

from windlass.engine.packing.folder import complete, worked_in
from windlass.engine.packing.lane import Importance, PackLane, unweighted
from windlass.engine.packing.work import PackingWork, planned
from windlass.facts.packed_files import PackPiece
from windlass.facts.progress import Progress
from windlass.facts.quantize_result import QuantizeResult
from windlass.kernels.quantiser import PACKINGS, packer_name
from windlass.memory.process_memory import resident_bytes
from windlass.settings import num_threads


@dataclass(frozen=True, slots=True)
class Calibration:
    """`weigh` finds the importance of columns, once the folder to work in is there; `digest` tells one from another."""

    digest: str
    weigh: Callable[[PackingWork], Importance]


def quantize(
    source: Path,
    target: Path,
    to: str,
    on_progress: Callable[[Progress], None],
    calibration: Calibration | None = None,
) -> QuantizeResult:
    """Packs the model in the folder `source` into the new folder `target`, in the format `to` ("int4" or "int8").

    Raises UsageError for a target that is taken or was begun as another job, UnsupportedModel for weights that are
    packed already, CheckpointError, and StorageError where the disk lacks the room.
    """
    work = planned(source, target.expanduser().absolute(), to, calibration.digest if calibration else None)
    packer = packer_name()  # a compiler may run, so before the clock does
    with worked_in(work) as durable:
        importance = calibration.weigh(work) if calibration else unweighted
        began, started_at = time.monotonic(), durable.pieces
        lane = PackLane(work.partial, work.files, PACKINGS[to], num_threads(), importance)
        telling = _Telling(work, started_at, on_progress)
        done = lane.run(work.pieces, durable, telling.piece)
        complete(work, done)
        seconds = time.monotonic() - began
    moved = work.pieces[started_at:]
    return QuantizeResult(
        model=str(source),
        output=str(work.target),
        to=to,
        packer=packer,
        calibrated=work.calibrated,
        packed_tensors=len(work.packed),
        kept_tensors=sum(len(file.tensors) for file in work.files) - len(work.packed),
        weights=sum(_weights(piece) for piece in work.pieces),
        bytes_in=sum(tensor.source.nbytes for file in work.files for tensor in file.tensors),
        bytes_out=work.nbytes,
        bytes_moved=sum(piece.nbytes for piece in moved),
        weights_moved=sum(_weights(piece) for piece in moved),
        seconds=seconds,
        pack_seconds=lane.pack_seconds,
        threads=lane.threads,
        error=sqrt(done.error / done.power) if done.power else 0.0,
    )


class _Telling:
    """Counts bytes of the source as its pieces are done."""

    def __init__(self, work: PackingWork, first: int, on_progress: Callable[[Progress], None]) -> None:
        self._total = sum(piece.nbytes for piece in work.pieces)
        self._before = self._done = sum(piece.nbytes for piece in work.pieces[:first])
        self._began, self._told = time.monotonic(), -inf
        self._on_progress = on_progress

    def piece(self, piece: PackPiece) -> None:
        self._done += piece.nbytes
        now = time.monotonic()
        if now - self._told < 0.5 and self._done < self._total:
            return
        self._told, seconds = now, now - self._began
        rate = (self._done - self._before) / seconds if seconds else 0.0
        self._on_progress(
            Progress(
                phase="pack", done=self._done, total=self._total, seconds=seconds, tokens_per_second=0.0,
                disk_rate=rate, disk_limit=0.0, memory=resident_bytes(), memory_budget=0,
                seconds_left=(self._total - self._done) / rate if rate else inf, sequences=0,
            )
        )  # fmt: skip


def _weights(piece: PackPiece) -> int:
    return piece.rows * piece.columns
