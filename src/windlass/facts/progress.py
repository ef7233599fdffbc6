"""One event of long work, as the doors show it: a bar on a terminal, a JSON line otherwise."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase has come. Rates are per second of this phase; `disk_limit` is 0 when it was not measured.

    `phase` is "download", "load", "pack", "prefill", "decode" or "rows". `done` and `total` count bytes in the first
    three, prompt tokens in prefill, generated tokens in decode (there `total` is the most that may come: sequences may
    end early). Of a job, in place of prefill and decode, "rows" counts its rows; `forecast` is how many seconds were
    forecast for all that were to be done.
    The last event of each phase has `done` and `total` equal, at what the phase came to.
    A pass may take minutes, so its tokens count by the share of the layers that are done, rounded down in `done`;
    rates and the time left are not rounded.
    """

    phase: str
    done: int
    total: int
    seconds: float
    tokens_per_second: float
    disk_rate: float
    disk_limit: float
    memory: int
    memory_budget: int
    seconds_left: float
    sequences: int
    forecast: float = 0.0
