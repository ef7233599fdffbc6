"""How long the host computes: its work is over when the call returns, so the clock on the wall will do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from windlass.facts.time_span import OnSpan


@contextmanager
def timed_on_host(on_span: OnSpan, name: str) -> Iterator[None]:
    """Tells `on_span` of what is computed within, as one span of the compute lane."""
    start = time.perf_counter()
    try:
        yield
    finally:
        on_span("compute", name, start, time.perf_counter())
