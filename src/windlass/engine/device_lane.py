"""The host-to-device lane: copies each slice the disk lane delivers into a ring on the device, ahead of its use.

It has the disk lane's own interface, so that the weights do not know which of the two they come from. A run of the
device ring may be overwritten once the kernels that read it have ended: giving it back leaves an event, and the next
copy waits for the latest of these.
"""

import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import torch

from windlass.engine.disk_lane import DiskLane
from windlass.errors import DeviceError, StorageError
from windlass.memory.ring import Ring, RingClosed
from windlass.memory.ticket import ReaderClosed
from windlass.memory.transfer import DeviceArena, Uploads


@dataclass(frozen=True, slots=True)
class DeviceDelivery:
    """A slice in the device's ring; its bytes are there once `done` has happened on the compute stream."""

    part: int
    arena: DeviceArena
    offset: int
    done: torch.cuda.Event


class DeviceLane:
    """Delivers what `disk` delivers, on `device`, through a ring of `ring_bytes` there."""

    def __init__(self, disk: DiskLane, ring_bytes: int, device: torch.device) -> None:
        self.wait_seconds = 0.0
        self._disk, self._device = disk, device
        self._arena = DeviceArena(ring_bytes, device)
        self._uploads = Uploads(disk.arena, self._arena)
        self._ring = Ring(ring_bytes)
        self._released: torch.cuda.Event | None = None
        self._deliveries: queue.SimpleQueue[DeviceDelivery | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._carry, name="windlass-device-lane", daemon=True)
        self._thread.start()

    def next(self, part: int) -> DeviceDelivery:
        """The next delivery, which must be of slice `part`; the compute stream waits for its bytes."""
        start = time.perf_counter()
        delivery = self._deliveries.get()
        self.wait_seconds += time.perf_counter() - start
        if isinstance(delivery, Exception):
            raise delivery
        assert delivery.part == part, f"slice {part} was asked for, slice {delivery.part} is next"
        torch.cuda.current_stream(self._device).wait_event(delivery.done)
        return delivery

    def give_back(self, delivery: DeviceDelivery) -> None:
        """Returns a delivery's credits; the kernels that use it have been started, not ended."""
        ended = torch.cuda.Event()
        ended.record(torch.cuda.current_stream(self._device))
        self._released = ended
        self._ring.release(delivery.offset)

    def close(self) -> None:
        """Stops both lanes and frees the ring."""
        self._ring.close()
        self._disk.stop()
        self._thread.join()
        self._uploads.close()
        self._disk.close()
        self._arena.close()

    def _carry(self) -> None:
        try:
            for part in self._disk.order():
                self._carry_one(part)
        except (StorageError, DeviceError) as error:
            self._deliveries.put(error)
        except (RingClosed, ReaderClosed):
            return

    def _carry_one(self, part: int) -> None:
        delivery = self._disk.next(part)
        offset = self._ring.acquire(self._disk.nbytes(part))
        done = self._uploads.copy(delivery.offset, offset, self._disk.nbytes(part), self._released)
        self._deliveries.put(DeviceDelivery(part, self._arena, offset, done))
        done.synchronize()
        with suppress(RingClosed):
            self._disk.give_back(delivery)
