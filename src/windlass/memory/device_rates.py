"""The link between host memory and a CUDA device, and how much memory the device has.

Copies are timed by the device's own events, so that what the host does meanwhile does not count.
"""

from collections.abc import Callable
from statistics import median

import torch

from windlass.facts.link import Link
from windlass.units import MIB

COPY_BYTES = 256 * MIB
REPEATS = 5


def device_memory(device: torch.device) -> int:
    """Bytes in all."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def measure_link(device: torch.device, nbytes: int = COPY_BYTES) -> Link:
    """Copies of `nbytes` both ways, pinned and pageable, and both ways at once. Medians of a few."""
    there, back = (torch.empty(nbytes, dtype=torch.uint8, device=device) for _ in range(2))
    pageable = torch.zeros(nbytes, dtype=torch.uint8)
    pinned, returned = (torch.zeros(nbytes, dtype=torch.uint8).pin_memory() for _ in range(2))
    up, down = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def both() -> None:
        with torch.cuda.stream(up):
            there.copy_(pinned, non_blocking=True)
        with torch.cuda.stream(down):
            returned.copy_(back, non_blocking=True)

    one = torch.empty(1, dtype=torch.uint8, device=device)
    return Link(
        upload=nbytes / _seconds(lambda: there.copy_(pinned, non_blocking=True), device),
        download=nbytes / _seconds(lambda: returned.copy_(back, non_blocking=True), device),
        both=2 * nbytes / _seconds(both, device, (up, down)),
        upload_pageable=nbytes / _seconds(lambda: there.copy_(pageable), device),
        download_pageable=nbytes / _seconds(lambda: pageable.copy_(back), device),
        latency=_seconds(lambda: one.copy_(pinned[:1], non_blocking=True), device),
    )


def _seconds(action: Callable[[], object], device: torch.device, streams: tuple[torch.cuda.Stream, ...] = ()) -> float:
    """Median seconds of `action` on the device, after one run that does not count.

    The action's own streams begin after the first event and are waited for before the last.
    """
    action()
    torch.cuda.synchronize(device)
    found = []
    here = torch.cuda.current_stream(device)
    for _ in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record(here)
        for stream in streams:
            stream.wait_event(begin)
        action()
        for stream in streams:
            here.wait_stream(stream)
        end.record(here)
        torch.cuda.synchronize(device)
        found.append(begin.elapsed_time(end) / 1e3)
    return median(found)
