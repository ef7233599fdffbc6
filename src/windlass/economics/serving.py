"""Serving at scale: how many machines a day's queries want at their peak, and what a query and a token cost then."""

from collections.abc import Mapping, Sequence

from windlass.economics.assumption import Assumption
from windlass.economics.assumption_sets import asked, packaged
from windlass.economics.formula import Formula
from windlass.economics.inference import Inference
from windlass.economics.money import OWNED_HOUR, RENTED_HOUR
from windlass.economics.sheet import Sheet, make_sheet
from windlass.errors import UsageError
from windlass.units import format_seconds

FLEET = (
    Formula("queries_per_second", "queries_per_day / 86400", "queries/s", "on average over a day"),
    Formula("peak_queries_per_second", "queries_per_second * peak_to_mean", "queries/s", "in the busiest hour"),
    Formula("query_seconds", "prefill_seconds + decode_seconds", "s", "from a query to the end of its answer"),
    Formula("seconds_per_token", "decode_seconds / max(1, answer_tokens - 1)", "s/token", "from token to token"),
    Formula("machine_queries_per_second", "batch / query_seconds", "queries/s", "a machine with full blocks"),
    Formula(
        "machines", "ceil(peak_queries_per_second / (machine_queries_per_second * fill))", "machines",
        "enough for the peak",
    ),
    Formula("cost_per_day", "machines * machine_per_hour * 24", "USD/day", "all of them, day and night"),
    Formula("cost_per_query", "cost_per_day / queries_per_day", "USD/query", "a query"),
    Formula(
        "mean_load", "queries_per_second / (machines * machine_queries_per_second)", "share",
        "of what the fleet can do, over the day",
    ),
    Formula(
        "price_in", "machine_per_hour / 3600 * prefill_seconds / tokens_in * 1e6 / mean_load", "USD/Mtoken",
        "a million tokens read",
    ),
    Formula(
        "price_out", "machine_per_hour / 3600 * decode_seconds / tokens_out * 1e6 / mean_load", "USD/Mtoken",
        "a million tokens generated",
    ),
)  # fmt: skip
API = (
    Formula(
        "cost_per_query", "(prompt_tokens * api_input + answer_tokens * api_output) / 1e6", "USD/query", "a query",
    ),
    Formula("cost_per_day", "cost_per_query * queries_per_day", "USD/day", "all queries"),
)  # fmt: skip
RESULTS = (
    "cost_per_query", "cost_per_day", "machines", "batch", "query_seconds", "seconds_per_token", "mean_load",
    "price_in", "price_out",
)  # fmt: skip


def load(queries_per_day: float, prompt_tokens: int, answer_tokens: int) -> dict[str, Assumption]:
    """What is asked of the fleet."""
    found = (
        asked("queries_per_day", queries_per_day, "queries/day"),
        asked("prompt_tokens", prompt_tokens, "tokens"),
        asked("answer_tokens", answer_tokens, "tokens"),
    )
    return {each.name: each for each in found}


def fleet_sheet(title: str, pool: Mapping[str, Assumption], *, owned: bool = False) -> Sheet:
    """A fleet of rented machines, or of machines that were bought."""
    known = packaged("today", "operation") | dict(pool)
    if owned:
        # A fleet is on day and night; what it is not asked for is in its mean load already.
        known = {"use": known["use"].changed(1.0, "a fleet is on day and night", "now")} | _without(known, "use")
    return make_sheet(title, (*(OWNED_HOUR if owned else RENTED_HOUR), *FLEET), RESULTS, known)


def api_sheet(title: str, pool: Mapping[str, Assumption]) -> Sheet:
    """The same queries sent to an API."""
    return make_sheet(title, API, ("cost_per_query", "cost_per_day"), pool)


def cheapest_block(tried: Sequence[Inference], latency: float | None) -> Inference:
    """The block that serves most queries a second of those that answer within `latency` seconds. Raises UsageError."""
    quick = [one for one in tried if latency is None or _query_seconds(one) <= latency]
    if not quick:
        least = min(_query_seconds(one) for one in tried)
        raise UsageError(
            f"--latency {latency:g}: the quickest block on {tried[0].machine.name} answers in {format_seconds(least)}; "
            "allow more, or name a faster machine with --machine"
        )
    return max(quick, key=lambda one: one.plan.block_size / _query_seconds(one))


def _query_seconds(one: Inference) -> float:
    return one.forecast.prefill.seconds + one.forecast.decode.seconds


def _without(pool: Mapping[str, Assumption], name: str) -> dict[str, Assumption]:
    return {key: value for key, value in pool.items() if key != name}
