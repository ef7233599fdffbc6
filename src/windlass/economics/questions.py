"""The questions of `windlass cost`, each answered by a report: forecasts and prices gathered, sheets made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from windlass.economics import adapter, job, search, serving, training, trajectory
from windlass.economics.assumption import Assumption
from windlass.economics.assumption_sets import Pool, asked, packaged
from windlass.economics.formula import Formula
from windlass.economics.inference import inference, inferences
from windlass.economics.loss_law import LossLaw, cheapest, constants, law_of
from windlass.economics.money import OWNED_HOUR, TOKEN_PRICES
from windlass.economics.number_text import count_text
from windlass.economics.power import own_ratings
from windlass.economics.prices import api_prices, machine_prices
from windlass.economics.report import CostReport
from windlass.economics.sheet import Sheet, known_names, make_sheet, with_settings
from windlass.errors import UsageError
from windlass.facts.catalogue import catalogue
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits
from windlass.planner.search import THOROUGH

# A prompt and an answer of the usual length, in a block that fits the card beside a model of 8 billion parameters.
USUAL = Workload(32, 512, 256)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a person puts in the place of assumptions: a file's, then the command line's."""

    file: Mapping[str, Assumption] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)

    def over(self, pool: Pool, *formulas: Formula) -> dict[str, Assumption]:
        """`pool` with the changes in it. Raises UsageError for a setting that nothing uses."""
        return with_settings(dict(pool) | dict(self.file), self.settings, formulas)


@dataclass(frozen=True, slots=True)
class Place:
    """A machine, the name of its device in the catalogue (None: not known there), and the limits to keep to."""

    machine: Machine
    device: str | None
    limits: Limits
    is_here: bool = False

    def prices(self) -> dict[str, Assumption]:
        """What is known of its price and its power; of this machine itself what it says of its power."""
        known = machine_prices(self.device) if self.device is not None else {}
        return known | (own_ratings() if self.is_here else {})


def device_of(machine: Machine) -> str | None:
    """The catalogue's name of a machine's device, "cpu" where there is none, None where it is not known."""
    if machine.device is None:
        return "cpu"
    name = machine.device.name.lower()
    known = [device for device in catalogue().values() if device.title.lower().removeprefix("nvidia ") in name]
    return max(known, key=lambda device: len(device.title)).name if known else None


def job_report(
    model: ModelFacts, work: Workload, here: Place, there: Place, allowed: Sequence[str], changes: Changes
) -> CostReport:
    """A job on a machine of one's own, beside the same on a rented one and by an API."""
    own = inference(model, work, here.machine, here.limits, allowed, THOROUGH)
    rented = inference(model, work, there.machine, there.limits, allowed)
    api = api_prices(model.name)
    rent = {name: value for name, value in there.prices().items() if name == "rent_per_hour"}
    owned = {name: value for name, value in here.prices().items() if name != "rent_per_hour"}
    known = packaged("today", "operation") | job.job_pool(own) | job.rented_pool(rented) | owned | rent | api
    pool = changes.over(known, *job.job_formulas(rented=True, api=True))
    has_api, has_rent = "api_input" in pool and "api_output" in pool, "rent_per_hour" in pool
    title = f"{work.num_prompts:,} rows by {model.name} on {here.machine.name}"
    sheet = job.job_sheet("this job", pool, rented=has_rent, api=has_api)
    notes = [f"here: {own.placement}", f"rented: {there.machine.name}; {rented.placement}"]
    if not has_api:
        notes.append(
            f"no API's price of {model.name} is known; give --set api_input= and --set api_output= (USD/Mtoken)"
        )
    if not has_rent:
        notes.append(f"no rent of {there.device} is known; give --set rent_per_hour= (USD/h)")
    return CostReport(f"What a job costs: {title}", (sheet,), tuple(notes))


def serve_report(
    model: ModelFacts, load: Mapping[str, Assumption], place: Place, latency: float | None, allowed: Sequence[str],
    changes: Changes,
) -> CostReport:  # fmt: skip
    """A fleet for a day's queries: rented, bought, and the same by an API."""
    prompt, answer = (int(load[name].value) for name in ("prompt_tokens", "answer_tokens"))
    tried = inferences(model, prompt, answer, place.machine, place.limits, allowed)
    chosen = serving.cheapest_block(tried, latency)
    known = packaged("today", "operation") | chosen.assumptions() | dict(load) | place.prices() | api_prices(model.name)
    pool = changes.over(known, *OWNED_HOUR, *serving.FLEET, *serving.API)
    sheets: list[Sheet] = []
    notes = [
        f"{place.machine.name}: {chosen.placement}; blocks of {', '.join(str(o.plan.block_size) for o in tried)} tried"
    ]
    if "rent_per_hour" in pool:
        sheets.append(serving.fleet_sheet("rented", pool))
    if "card_price" in pool:
        sheets.append(serving.fleet_sheet("bought", pool, owned=True))
    if "api_input" in pool and "api_output" in pool:
        sheets.append(serving.api_sheet("by an API", pool))
    if not sheets:
        raise UsageError(
            f"neither rent nor price of {place.device} is known; give --set rent_per_hour= (USD/h) or --set card_price="
        )
    title = f"What serving costs: {load['queries_per_day'].value:,.0f} queries a day, {model.name}"
    return CostReport(title, tuple(sheets), tuple(notes))


def search_report(
    model: ModelFacts, rented: Place, card: Place, allowed: Sequence[str], changes: Changes, *, only_2023: bool = False
) -> CostReport:
    """January 2023; then today's API, a rented machine, and Windlass on one card."""
    title = "What a search answered by a language model costs, beside what it earns"
    formulas = (*search.JANUARY_2023, *search.BY_API, *search.OWNED)
    today = packaged("today", "operation") | packaged("today", "search")
    own = machine_prices(card.device or "") | machine_prices(rented.device or "") | api_prices(model.name)
    january = packaged("january_2023", "search")
    # One name may stand in both: what is set is set in both.
    every = changes.over(january | today | own, *formulas)
    changed = {name: every[name] for name in (*changes.file, *changes.settings)}
    first = search.january_2023({n: v for n, v in changed.items() if n in january or n in _made(search.JANUARY_2023)})
    if only_2023:
        return CostReport(title, (first,))
    reader, summary = search.reader_lengths(changed)
    sheets, notes = [first], []
    if "api_input" in api_prices(model.name) or "api_input" in changed:
        sheets.append(search.query_sheet(f"{model.name} by an API", search.BY_API, api_prices(model.name) | changed))
    for place, what, how in ((rented, "rented", search.RENTED), (card, "Windlass on one card", search.OWNED)):
        chosen = serving.cheapest_block(
            inferences(model, reader, summary, place.machine, place.limits, allowed), latency=None
        )
        pool = chosen.assumptions() | place.prices() | changed
        sheets.append(search.query_sheet(f"{model.name}, {what}: {place.machine.name}", how, pool))
        notes.append(f"{place.machine.name}: {chosen.placement}")
    return CostReport(title, tuple(sheets), tuple(notes))


def training_report(
    title: str, model: Mapping[str, Assumption], chip: Mapping[str, Assumption], fit: str, served: float | None,
    changes: Changes, *, with_2023: bool,
) -> CostReport:  # fmt: skip
    """A run at today's prices; with `with_2023` the analysis of January 2023 first."""
    extra = {} if served is None else {"served_tokens": asked("served_tokens", served, "tokens")}
    known = packaged("today", "train") | dict(model) | dict(chip) | constants(fit) | extra
    pool = changes.over(known, *training.WITH_LOSS, *training.SERVED)
    sheets = [training.training_sheet(f"{title}, today", model, pool, served="served_tokens" in pool)]
    if with_2023:
        own = {name: pool[name] for name in (*changes.file, *changes.settings)}
        sheets.insert(0, training.january_2023(title, model, own))
    notes = ["one run that succeeds: experiments, people and data are not counted"]
    if not all(pool[name].value for name in ("layers", "width", "context")):
        notes.append(
            "attention and embeddings: layers, width and context are not known, so 6 N D alone is counted; give "
            "--set layers= --set width= --set context= (and --set looked_up_parameters=)"
        )
    return CostReport(f"What training costs: {title}", tuple(sheets), tuple(notes))


def adapter_report(
    model: ModelFacts, rank: int, tokens: float, length: int, here: Place, there: Place, allowed: Sequence[str],
    changes: Changes,
) -> CostReport:  # fmt: skip
    """Fine-tuning by adapter on one card, beside the same on a rented one."""
    work = adapter.tuning_work(tokens, length)
    formulas, known = (*adapter.TUNE, *adapter.RENT), adapter.adapter_pool(model, rank, length)
    prices = {name: value for name, value in here.prices().items() if name != "rent_per_hour"}
    prices |= {name: value for name, value in there.prices().items() if name == "rent_per_hour"}
    # The adapter's size decides what the plan may take; a setting of something else is judged once all is known.
    about = known_names((), adapter.SIZES)
    chosen = {name: value for name, value in changes.settings.items() if name in about}
    sizes = Changes(changes.file, chosen).over(known, *adapter.SIZES)
    plans = []
    for place in (here, there):
        limits = adapter.beside_adapter(model, work, place.machine, place.limits, sizes)
        plans.append(inference(model, work, place.machine, limits, allowed, THOROUGH))
    own, rented = plans
    known |= packaged("today", "operation") | adapter.tuning_pool(own, rented) | prices
    pool = changes.over(known, *formulas)
    has_rent = "rent_per_hour" in pool
    notes = [
        "Windlass does not train yet: this is what its streaming would cost, from its forecast of reading the tokens",
        f"here: {own.placement}",
        f"rented: {there.machine.name}; {rented.placement}",
    ]
    if own.is_offloaded:
        notes.append("weights that travel may serve recomputing and backward in one trip: see recomputed_walks")
    if pool["kept_bytes_per_token"].value > model.cache_bytes_per_token:
        times = pool["kept_bytes_per_token"].value / max(1, model.cache_bytes_per_token)
        notes.append(
            f"checkpoint_bytes is {times:.1f} times what the plan keeps room for: a step may want fewer sequences"
        )
    if not has_rent:
        notes.append(f"no rent of {there.device} is known; give --set rent_per_hour= (USD/h)")
    title = f"rank {rank} of {model.name} on {count_text(tokens)} tokens, on {here.machine.name}"
    sheet = adapter.adapter_sheet("this run", pool, rented=has_rent)
    return CostReport(f"What an adapter costs: {title}", (sheet,), tuple(notes))


def cheapest_model(
    loss: float, chip: Mapping[str, Assumption], fit: str, served: float | None, changes: Changes
) -> tuple[str, dict[str, Assumption]]:
    """Title and sizes of the cheapest model of a loss, with the tokens it will serve if those are given."""
    pool = changes.over(packaged("today", "train") | dict(chip) | constants(fit), *training.WITH_LOSS, *training.SERVED)
    law: LossLaw = law_of(pool)
    weight = pool["mfu"].value / pool["inference_utilisation"].value
    shape = cheapest(law, loss, served or 0.0, weight)
    beside = f" with {count_text(served)} tokens served" if served else ""
    sizes = f"{count_text(shape.parameters)} parameters on {count_text(shape.tokens)} tokens"
    source = f"the cheapest of loss {loss:g} by Chinchilla's law"
    return f"{sizes}, the cheapest of loss {loss:g}{beside}", training.model_of(shape.parameters, shape.tokens, source)


def trajectory_report(model: ModelFacts, card: Place, changes: Changes) -> CostReport:
    """Year by year, with what a token costs on one card at the end."""
    trainings = trajectory.training_sheets()
    own = inference(model, USUAL, card.machine, card.limits)
    known = packaged("today", "operation") | own.assumptions() | card.prices()
    formulas = (*OWNED_HOUR, *TOKEN_PRICES, Formula("price", "(price_in + price_out) / 2", "USD/Mtoken", "in and out"))
    last = make_sheet(f"{model.name} on {card.machine.name}", formulas, ("price",), changes.over(known, *formulas))
    here = trajectory.computed_point(
        trajectory.ON_ONE_CARD, f"{model.name}, {card.device}", trajectory.LAST, last, own.source
    )
    points = (*trajectory.published_tokens(), here, *trajectory.training_points(trainings))
    sheets = (*(sheet for _, _, sheet in trainings), last)
    notes = ("prices stay with their date; the last token is forecast, with the card's price and power in it",)
    return CostReport("What GPT-3's quality costs, year by year", sheets, notes, points)


def _made(formulas: Sequence[Formula]) -> set[str]:
    return {formula.name for formula in formulas}
