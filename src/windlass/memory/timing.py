"""How long work takes on the host or on a device, told so that other processes disturb it least."""

import time
from collections.abc import Callable
from statistics import quantiles

import torch


def finish(device: torch.device) -> None:
    """Returns when the device has done what it was given; the host has already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run_seconds(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run; a device has ended its work by then."""
    finish(device)
    start = time.perf_counter()
    action()
    finish(device)
    return time.perf_counter() - start


def typical_seconds(action: Callable[[], object], device: torch.device, seconds: float, least: int = 4) -> float:
    """Of a run of `action`, repeated for `seconds` and at least `least` times after one that warms up.

    A first run of more than `seconds` counts itself: what is long needs no second to be believed.
    """
    first = run_seconds(action, device)
    if first > seconds:
        return first
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < least or time.perf_counter() - start < seconds:
        found.append(run_seconds(action, device))
    return undisturbed(found)


def undisturbed(found: list[float]) -> float:
    """The lower quartile of several times: other processes only ever make a run longer."""
    return quantiles(found, n=4, method="inclusive")[0] if len(found) > 1 else found[0]
