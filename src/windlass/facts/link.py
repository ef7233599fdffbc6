"""The link between host memory and a device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """Bytes/s to the device and back, from pinned memory and from pageable memory; `both` is the sum of the two
    directions used at once, `latency` the seconds before a copy begins to arrive."""

    upload: float
    download: float
    both: float
    upload_pageable: float
    download_pageable: float
    latency: float = 10e-6
