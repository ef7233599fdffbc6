"""A tile is unpacked strip by strip, so that what unpacking needs besides it stays small and in cache."""

from collections.abc import Iterator

import torch

# Numbers of a strip on a processor; a device starts few large kernels sooner than many small ones.
HOST_NUMBERS = 1 << 18
DEVICE_NUMBERS = 1 << 24


def strips(first: int, last: int, width: int, step: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """(start, stop) of the strips of first .. last, each line of which has `width` numbers; as many lines as a strip
    may have, but always a multiple of `step` of them."""
    most = HOST_NUMBERS if device.type == "cpu" else DEVICE_NUMBERS
    lines = max(1, most // max(1, width) // step) * step
    for start in range(first, last, lines):
        yield start, min(start + lines, last)
