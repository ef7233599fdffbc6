"""One event of progress in words and in JSON: every figure beside the limit it runs into."""

import json
import math
from dataclasses import asdict

from windlass.facts.progress import Progress
from windlass.units import format_bytes, format_rate, format_seconds, format_size


def done_text(event: Progress) -> str:
    """`1.20 of 6.03 GB` while loading, `412/1024` tokens or rows after."""
    if event.phase in ("load", "download", "pack"):
        return _beside(format_bytes(event.done), format_bytes(event.total))
    return f"{event.done}/{event.total}"


def speed_text(event: Progress) -> str:
    """Tokens per second; empty while loading."""
    return f"{event.tokens_per_second:.3g} tok/s" if event.tokens_per_second else ""


def disk_text(event: Progress) -> str:
    """`disk 1.92 of 2.41 GB/s`; empty when nothing is read."""
    if not event.disk_rate:
        return ""
    rate = format_rate(event.disk_rate)
    return f"disk {_beside(rate, format_rate(event.disk_limit)) if event.disk_limit else rate}"


def memory_text(event: Progress) -> str:
    """`mem 1.20 of 4.00 GiB`: the process beside its budget; empty before there is one."""
    if not event.memory_budget:
        return ""
    return f"mem {_beside(format_size(event.memory), format_size(event.memory_budget))}"


def left_text(event: Progress) -> str:
    """Time left, of a job beside the forecast of the whole; empty while it is not known and when nothing is left."""
    known = math.isfinite(event.seconds_left) and event.seconds_left > 0
    forecast = f" ({format_seconds(event.forecast)} forecast)" if event.forecast else ""
    return f"{format_seconds(event.seconds_left)} left{forecast}" if known else ""


def json_line(event: Progress) -> str:
    """One line for a machine. What is not finite becomes null, which JSON can say."""
    fields = {name: _plain(value) for name, value in asdict(event).items()}
    return json.dumps({"event": "progress"} | fields)


def _plain(value: object) -> object:
    if not isinstance(value, float):
        return value
    return round(value, 4) if math.isfinite(value) else None


def _beside(value: str, limit: str) -> str:
    """`1.92 GB/s`, `2.41 GB/s` -> `1.92 of 2.41 GB/s`: the unit once where it is the same."""
    number, _, unit = value.partition(" ")
    return f"{number if limit.endswith(f' {unit}') else value} of {limit}"
