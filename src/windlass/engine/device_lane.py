"""The host-to-device lane: brings each slice's streaming weights into a ring on the device, ahead of their use.

What rests in host memory starts from there; what comes from disk is taken from the disk lane as it is delivered. A run
of the device ring may be overwritten once what computed with it has ended: giving it back leaves a mark, and the next
copy waits for the latest of these.
"""

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from windlass.engine.disk_lane import DiskLane
from windlass.engine.host_weights import HostWeights
from windlass.errors import DeviceError, StorageError
from windlass.facts.piece import Piece
from windlass.memory.accelerator import Accelerator, DeviceMemory, Mark
from windlass.memory.arena import Arena
from windlass.memory.ring import Ring, RingClosed
from windlass.memory.ticket import ReaderClosed


@dataclass(frozen=True, slots=True)
class DeviceDelivery:
    """A slice in the device's ring, what came from disk at `offset` and what came from the host behind it."""

    part: int
    arena: DeviceMemory
    offset: int
    nbytes: int
    done: Mark


class DeviceLane:
    """Delivers slices in order, round and round. `pieces` gives what comes from disk, `host` what rests there.

    `names[part]` is what a slice is called.
    """

    def __init__(
        self,
        pieces: Sequence[Piece | None],
        disk: DiskLane | None,
        host: HostWeights,
        ring_bytes: int,
        accelerator: Accelerator,
        names: Sequence[str],
    ) -> None:
        self.wait_seconds = 0.0
        self._names = [f"upload {name}" for name in names]
        self._pieces, self._disk, self._host, self._accelerator = pieces, disk, host, accelerator
        self._order = [part for part, piece in enumerate(pieces) if piece is not None or host.pieces[part] is not None]
        self._arena = accelerator.memory(ring_bytes)
        self._ring = Ring(ring_bytes)
        if disk is not None:
            accelerator.pin(disk.arena)
        self._released: list[Mark] = []
        self._deliveries: queue.SimpleQueue[DeviceDelivery | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._carry, name="windlass-device-lane", daemon=True)
        self._thread.start()

    def next(self, part: int) -> DeviceDelivery:
        """The next delivery, which must be of slice `part`; what is computed from here on comes after its bytes."""
        start = time.perf_counter()
        delivery = self._deliveries.get()
        if isinstance(delivery, Exception):
            raise delivery
        assert delivery.part == part, f"slice {part} was asked for, slice {delivery.part} is next"
        self._accelerator.compute_after(delivery.done)
        self.wait_seconds += time.perf_counter() - start
        return delivery

    def give_back(self, delivery: DeviceDelivery) -> None:
        """Returns a delivery's credits; what computes with it has been issued, not ended."""
        self._arena.poison(delivery.offset, delivery.nbytes)
        self._released = [self._accelerator.mark()]
        self._ring.release(delivery.offset)

    def close(self) -> None:
        """Stops both lanes and frees the ring."""
        self._ring.close()
        if self._disk is not None:
            self._disk.stop()
        self._thread.join()
        self._accelerator.drain()
        if self._disk is not None:
            self._accelerator.unpin(self._disk.arena)
            self._disk.close()
        self._arena.close()

    def _carry(self) -> None:
        try:
            while True:
                for part in self._order:
                    self._carry_one(part)
        except (StorageError, DeviceError) as error:
            self._deliveries.put(error)
        except (RingClosed, ReaderClosed):
            # Whoever waits for a delivery that will not come is told so.
            self._deliveries.put(RingClosed())

    def _carry_one(self, part: int) -> None:
        from_disk, from_host = self._pieces[part], self._host.pieces[part]
        delivery = self._disk.next(part) if from_disk is not None and self._disk is not None else None
        first = from_disk.nbytes if from_disk is not None else 0
        nbytes = first + (from_host.nbytes if from_host is not None else 0)
        offset = self._ring.acquire(nbytes)
        marks = []
        if delivery is not None:
            marks.append(self._upload(part, delivery.arena, delivery.offset, offset, first))
        if from_host is not None:
            assert self._host.arena is not None
            marks.append(self._upload(part, self._host.arena, self._host.offsets[part], offset + first, nbytes - first))
        # Copies keep their order, so the last one's mark is that of all.
        self._deliveries.put(DeviceDelivery(part, self._arena, offset, nbytes, marks[-1]))
        if delivery is not None and self._disk is not None:
            marks[0].wait()
            with suppress(RingClosed):
                self._disk.give_back(delivery)

    def _upload(self, part: int, source: Arena, source_offset: int, offset: int, nbytes: int) -> Mark:
        return self._accelerator.upload(
            source.tensor(source_offset, torch.uint8, (nbytes,)),
            self._arena.tensor(offset, torch.uint8, (nbytes,)),
            self._released,
            self._names[part],
        )
