"""What training costs: arithmetic, utilisation, price of a chip's hour, and what failures waste."""

from collections.abc import Mapping

from windlass.economics.assumption import Assumption, exact
from windlass.economics.assumption_sets import asked, by_name, content, entry_named, packaged
from windlass.economics.formula import Formula
from windlass.economics.loss_law import LOSS
from windlass.economics.sheet import Sheet, make_sheet
from windlass.facts.catalogue import catalogue

TRAIN = (
    Formula(
        "matrix_flops_per_token", "6 * (active_parameters - looked_up_parameters)", "FLOP/token",
        "2 forward and 4 backward a parameter that a token meets; tables that are looked up do none",
    ),
    Formula(
        "attention_flops_per_token", "attention_counted * 12 * layers * width * context", "FLOP/token",
        "scores and values, forward and backward",
    ),
    Formula(
        "training_flops", "(matrix_flops_per_token + attention_flops_per_token) * training_tokens", "FLOP", "the run",
    ),
    Formula("chip_hours", "training_flops / (peak_flops * mfu) / 3600", "h", "without a failure"),
    Formula(
        "lost_share",
        "min(0.9, failures_per_million_chip_hours / 1e6 * chips * (restart_hours + checkpoint_hours / 2))", "share",
        "every failure stops all chips for a restart and half a checkpoint's interval",
    ),
    Formula("paid_chip_hours", "chip_hours / (1 - lost_share)", "h", "with what failures waste"),
    Formula("days", "paid_chip_hours / chips / 24", "days", "with so many chips"),
    Formula("training_cost", "paid_chip_hours * chip_per_hour", "USD", "the run that succeeds, once"),
)  # fmt: skip

RESULTS = ("training_cost", "parameters", "training_tokens", "training_flops", "chip_hours", "lost_share", "days")
JANUARY_RESULTS = ("training_cost", "training_flops", "chip_hours")
WITH_LOSS = (*TRAIN, *LOSS)
SERVED = (
    Formula(
        "serving_cost",
        "2 * active_parameters * served_tokens / (peak_flops * inference_utilisation) / 3600 * chip_per_hour", "USD",
        "what the model's tokens cost in its life",
    ),
    Formula("whole_cost", "training_cost + serving_cost", "USD", "training and serving"),
)  # fmt: skip


def model_named(name: str) -> tuple[str, dict[str, Assumption]]:
    """Title and figures of a known model. Raises UsageError with the nearest."""
    entry = entry_named("models", name, "the model")
    return str(entry["title"]), by_name(entry["assumptions"], "models.json")


def model_of(parameters: float, tokens: float, source: str = "asked for") -> dict[str, Assumption]:
    """A model of which only its sizes are known. Raises UsageError for sizes that cannot be."""
    sizes = {"parameters": parameters, "active_parameters": parameters}
    found = {name: asked(name, value, "parameters", source) for name, value in sizes.items()}
    return found | {"training_tokens": asked("training_tokens", tokens, "tokens", source)}


def chip(device: str, rent: Mapping[str, Assumption]) -> dict[str, Assumption]:
    """`peak_flops` and, where it is known, `chip_per_hour` of a device of the catalogue."""
    known = catalogue()[device]
    peak = known.peaks["bfloat16"]
    found = {"peak_flops": exact("peak_flops", peak.value, "FLOP/s", peak.source, "datasheet")}
    if "rent_per_hour" in rent:
        each = rent["rent_per_hour"]
        named = Assumption("chip_per_hour", each.value, each.unit, each.source, each.date, each.low, each.high)
        found["chip_per_hour"] = named
    return found


def january_2023(title: str, model: Mapping[str, Assumption], changes: Mapping[str, Assumption]) -> Sheet:
    """A model's training by the assumptions of January 2023."""
    own = packaged("january_2023", "train")
    pool = packaged("today", "train") | dict(model) | own | dict(changes)
    return make_sheet(f"{title}, January 2023", TRAIN, JANUARY_RESULTS, pool)


def training_sheet(
    title: str, model: Mapping[str, Assumption], pool: Mapping[str, Assumption], *, served: bool = False
) -> Sheet:
    """A model's training with today's figures, its loss by the law, and with `served` the tokens of its life."""
    known = packaged("today", "train") | dict(model) | dict(pool)
    formulas = (*WITH_LOSS, *SERVED) if served else WITH_LOSS
    results = (*(("whole_cost", "serving_cost") if served else ()), *RESULTS, "loss")
    return make_sheet(title, formulas, results, known)


def model_names() -> tuple[str, ...]:
    """Models whose training is known."""
    return tuple(str(entry["name"]) for entry in content("models"))
