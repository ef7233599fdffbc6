"""A job of rows, on a machine of one's own: time, energy, money and wear; beside a rented card and an API."""

from collections.abc import Mapping

from windlass.economics.assumption import Assumption, exact
from windlass.economics.assumption_sets import packaged
from windlass.economics.formula import Formula
from windlass.economics.inference import Inference
from windlass.economics.money import OWNED_HOUR
from windlass.economics.sheet import Sheet, make_sheet

# What any run on a machine of one's own comes to, from its `job_seconds` and `bytes_written`.
PRICED = (
    Formula("job_hours", "job_seconds / 3600", "h", "the same"),
    Formula("energy", "power / 1000 * job_hours", "kWh", "what it takes"),
    Formula("electricity_cost", "energy * electricity", "USD", "its electricity"),
    Formula("wear", "bytes_written / disk_endurance", "share", "of what the disk may be written in its life"),
    Formula("wear_cost", "wear * disk_price", "USD", "that share of its price"),
    Formula("running_cost", "electricity_cost + wear_cost", "USD", "on a machine that is there anyway"),
    Formula("capital_cost", "capital_per_hour * job_hours", "USD", "the share of the machine's price"),
    Formula("own_cost", "running_cost + capital_cost", "USD", "with the machine's price"),
)
OWN = (
    *OWNED_HOUR,
    Formula("job_seconds", "load_seconds + prefill_seconds + decode_seconds", "s", "the whole job here"),
    Formula(
        "bytes_written",
        "rows * answer_bytes_per_row + tokens_out * answer_bytes_per_token + bytes_spilled + bytes_copied", "bytes",
        "answers, keys and values that fit no memory, and a packed copy of the weights where one is made",
    ),
    *PRICED,
)  # fmt: skip
RENT = (
    Formula("rented_hours", "rented_seconds / 3600 + setup_hours", "h", "the job on the rented card, and its start"),
    Formula("rented_cost", "rented_hours * rent_per_hour", "USD", "on the rented card"),
    Formula("saved_against_rent", "(rented_cost - running_cost) / rows", "USD/row", "by running it here"),
    Formula(
        "break_even_against_rent", "volume(machine_price, saved_against_rent)", "rows",
        "after which the machine has earned its price, beside renting",
    ),
    Formula(
        "years_against_rent", "break_even_against_rent * job_seconds / rows / 3600 / 8760", "years",
        "of work day and night that they take; beyond the machine's life it never pays",
    ),
)  # fmt: skip
API = (
    Formula("api_cost", "(tokens_in * api_input + tokens_out * api_output) / 1e6", "USD", "by the API"),
    Formula("saved_against_api", "(api_cost - running_cost) / rows", "USD/row", "by running it here"),
    Formula(
        "break_even_against_api", "volume(machine_price, saved_against_api)", "rows",
        "after which the machine has earned its price, beside the API",
    ),
    Formula(
        "years_against_api", "break_even_against_api * job_seconds / rows / 3600 / 8760", "years",
        "of work day and night that they take; beyond the machine's life it never pays",
    ),
)  # fmt: skip
PER_TOKEN = (
    Formula("own_cost_per_million_tokens", "own_cost / (tokens_in + tokens_out) * 1e6", "USD/Mtoken", "in or out"),
)  # fmt: skip
OWN_RESULTS = (
    "own_cost", "job_seconds", "energy", "electricity_cost", "capital_cost", "running_cost", "bytes_read",
    "bytes_written", "wear", "own_cost_per_million_tokens",
)  # fmt: skip
RENT_RESULTS = ("rented_hours", "rented_cost", "break_even_against_rent", "years_against_rent")
API_RESULTS = ("api_cost", "break_even_against_api", "years_against_api")


def job_formulas(*, rented: bool, api: bool) -> tuple[Formula, ...]:
    """Those of a job, with what is known to compare it with."""
    return (*OWN, *PER_TOKEN, *(RENT if rented else ()), *(API if api else ()))


def job_pool(here: Inference) -> dict[str, Assumption]:
    """What the forecast says; weights in another format than the checkpoint's are written once before."""
    copied = float(here.weight_bytes) if here.format is not None else 0.0
    return here.assumptions() | {"bytes_copied": exact("bytes_copied", copied, "bytes", here.source, "now")}


def rented_pool(there: Inference) -> dict[str, Assumption]:
    """The seconds of the same job on the rented card."""
    told = there.forecast
    ends = (told.seconds * told.low, told.seconds * told.high)
    return {"rented_seconds": Assumption("rented_seconds", told.seconds, "s", there.source, "now", *ends)}


def job_sheet(title: str, pool: Mapping[str, Assumption], *, rented: bool, api: bool) -> Sheet:
    """A job; `rented` and `api` say whether `pool` holds what those need."""
    results = (*OWN_RESULTS, *(RENT_RESULTS if rented else ()), *(API_RESULTS if api else ()))
    return make_sheet(title, job_formulas(rented=rented, api=api), results, packaged("today", "operation") | dict(pool))
