"""When a server that takes no question now wants to be asked again: HTTP's `Retry-After`, in seconds or as a date."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """In how many `seconds`, infinity where that cannot be read; `told` is it for people, behind "ask again"."""

    seconds: float
    told: str


def retry_after(headers: Mapping[str, str], unsaid: float = math.inf) -> RetryAfter:
    """Of the headers of an answer; `unsaid` seconds where none says it.

    A date is by the server's clock, which its `Date` shows, and by ours where there is none.
    """
    said = headers.get("Retry-After")
    if said is None:
        return RetryAfter(unsaid, "later")
    if said.isascii() and said.isdigit():
        return RetryAfter(float(said), f"in {said:.20} s")
    when, now = _moment(said), _moment(headers.get("Date", "")) or datetime.now(timezone.utc)
    if when is None:
        return RetryAfter(math.inf, "later")
    return RetryAfter(max(0.0, (when - now).total_seconds()), f"after {said}")


def _moment(date: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
