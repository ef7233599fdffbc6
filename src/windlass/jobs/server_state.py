"""What a Windlass server tells of itself at /windlass/state, for people; another or older server tells less."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from windlass.units import format_size


def state_lines(state: object) -> tuple[str, ...]:
    """One fact a line, none for what is not told."""
    return tuple(_lines(state)) if isinstance(state, Mapping) else ()


def _lines(state: Mapping[str, Any]) -> Iterator[str]:
    speed, queue, tiers = _part(state, "speed"), _part(state, "queue"), state.get("tiers")
    rate = speed.get("tokens_per_second")
    if _is_number(rate) and rate:
        forecast = speed.get("forecast")
        beside = f", forecast {forecast:.3g}" if _is_number(forecast) and forecast else ""
        yield f"speed    {rate:.3g} tok/s for all who ask, in the last passes{beside}"
    if _is_number(queue.get("running")) and _is_number(queue.get("waiting")):
        yield f"queue    {queue['running']} answered now, {queue['waiting']} wait"
    held = [_tier(tier) for tier in tiers if isinstance(tier, Mapping)] if isinstance(tiers, list) else []
    if told := [each for each in held if each]:
        yield f"memory   {', '.join(told)}"
    if isinstance(state.get("binds"), str):
        yield f"bound by {state['binds']}"


def _tier(tier: Mapping[str, Any]) -> str:
    """`host 1.20 GiB of 4.00 GiB`: what is given to somebody, of the budget."""
    name, budget, parts = tier.get("name"), tier.get("budget"), tier.get("parts")
    if not isinstance(name, str) or not _is_number(budget) or not isinstance(parts, list):
        return ""
    given = [part for part in parts if isinstance(part, Mapping) and part.get("kind") != "free"]
    if not all(_is_number(part.get("bytes")) for part in given):
        return ""
    return f"{name} {format_size(sum(int(part['bytes']) for part in given))} of {format_size(int(budget))}"


def _part(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = state.get(name)
    return part if isinstance(part, Mapping) else {}


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
