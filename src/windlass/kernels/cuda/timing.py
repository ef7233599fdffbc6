"""How long something takes on a CUDA device."""

from collections.abc import Callable
from statistics import median

import torch

ROUNDS = 5
LEAST_SECONDS = 2e-4
"""Of a round, so that what it costs to begin one does not count."""
MOST_RUNS = 50


def seconds(run: Callable[[], object]) -> float:
    """The median of some rounds of `run`, which has been compiled and warmed up before."""
    run()
    once = _round(run, 1)
    runs = max(1, min(MOST_RUNS, round(LEAST_SECONDS / max(once, 1e-6))))
    return median(_round(run, runs) for _ in range(ROUNDS))


def _round(run: Callable[[], object], runs: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(runs):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / runs
