"""When a job has to be done: a time of day, or a date and time, as seconds from now."""

import re
from datetime import datetime, timedelta

from windlass.errors import UsageError


def seconds_until(text: str, now: datetime) -> float:
    """`08:00` (the next time that it is) or `2026-12-01T08:00` -> seconds from `now`. Raises UsageError."""
    if re.fullmatch(r"\d{1,2}:\d{2}", text):
        hour, minute = (int(part) for part in text.split(":"))
        if hour > 23 or minute > 59:
            raise UsageError(f"--finish-by {text} is no time of day; write it as 08:00")
        then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return ((then if then > now else then + timedelta(days=1)) - now).total_seconds()
    try:
        then = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--finish-by {text!r} is no time; write it as 08:00 or 2026-12-01T08:00") from error
    if then.tzinfo is None:
        then = then.replace(tzinfo=now.tzinfo)
    if then <= now:
        raise UsageError(
            f"--finish-by {text} is over already, it is {now.isoformat(timespec='minutes')}; name a later time"
        )
    return (then - now).total_seconds()
