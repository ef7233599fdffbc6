"""`windlass cost`: what a job, a service, a search, a training run cost, and how that has moved. A group of verbs."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from windlass.cli.adapter_flags import LENGTH, MEMORY, RANK, AdapterFlags
from windlass.cli.cost_flags import CostFlags
from windlass.cli.late import late, require_plotting
from windlass.cli.numbers import counting, real
from windlass.cli.plan_flags import LimitFlags, MachineFlags, WorkFlags
from windlass.cli.planned_work import (
    check_length,
    described,
    limits_here,
    machine_here,
    model_or_shape,
    place_of,
    workload,
)
from windlass.errors import UsageError
from windlass.facts.catalogue import catalogue, machine_named
from windlass.facts.weight_formats import SMALLER_FORMATS
from windlass.units import parse_size

RENTED, CARD, SMALL, FIT = "h100", "rtx3090", "llama-3-8b", "hoffmann-2022"
JOB_EXAMPLES = (
    "windlass cost job ./model -i rows.jsonl",
    "windlass cost job llama-3-70b --machine rtx3090 --host-memory 128GiB --num-prompts 10000 --allow int8,int4",
    "windlass cost job ./model -i rows.jsonl --set electricity=0.35 --explain",
)
SERVE_EXAMPLES = (
    "windlass cost serve llama-3-8b --machine h100 --queries-per-day 1e6 --tokens-in 2000 --tokens-out 300",
    "windlass cost serve llama-3-8b --machine l4 --latency 20 --plot serve.png",
)
SEARCH_EXAMPLES = (
    "windlass cost search --only-2023 --explain",
    "windlass cost search --model llama-3-8b --card rtx4090",
)
TRAIN_EXAMPLES = (
    "windlass cost train gpt3",
    "windlass cost train --params 70e9 --tokens 1.4e12 --machine a100-80 --mfu 0.46",
    "windlass cost train --loss 2.0 --served-tokens 1e13",
    "windlass cost train llama-3-8b --adapter --rank 16 --tokens 1e7 --machine rtx3090",
)
TRAJECTORY_EXAMPLES = ("windlass cost trajectory --plot cost.png",)

_Device = f"A device: {', '.join(catalogue())}."
_Memory = Annotated[str, typer.Option(metavar="SIZE", help="Memory of the machine beside the card.")]
_Allow = Annotated[str, typer.Option(metavar="FORMATS", help=f"Smaller weights: {', '.join(SMALLER_FORMATS)}.")]


def job(
    work: WorkFlags,
    machine: MachineFlags,
    limit: LimitFlags,
    cost: CostFlags,
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A folder, a GGUF file, a hub id or a shape's name.", show_default=False),
    ],
    rent: Annotated[str, typer.Option(metavar="NAME", help=f"The rented card to compare with. {_Device}")] = RENTED,
) -> None:
    """Time, energy, money and wear of a job here, beside a rented card and an API."""
    _check(cost)
    if limit.finish_by is not None or limit.max_seconds is not None:
        raise UsageError("--finish-by and --max-seconds have no effect on a cost; leave them out")
    named = model_or_shape(model, None)
    facts = described(named, None, "auto", None)
    asked = workload(late("jobs.planning"), work, named, facts.max_model_len)
    check_length(facts, asked)
    questions = late("economics.questions")
    here = machine_here(machine, limit, place_of(named))
    on_host = machine.device == "cpu"
    device = machine.machine if machine.machine in catalogue() and not on_host else questions.device_of(here)
    limits = limits_here(limit, machine, here, named, asked)
    own = questions.Place(here, "cpu" if on_host else device, limits, machine.machine is None)
    rented = _place(rent, None)
    _write(questions.job_report(facts, asked, own, rented, limit.formats, _changes(cost)), cost)


def serve(
    cost: CostFlags,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder, a hub id or a shape's name.", show_default=False)
    ],
    machine: Annotated[str, typer.Option(metavar="NAME", help=_Device)] = RENTED,
    queries_per_day: Annotated[float, typer.Option(parser=real, metavar="N", help="Queries.")] = 1e6,
    tokens_in: Annotated[int, typer.Option(parser=counting, metavar="N", help="Tokens of a prompt.")] = 2000,
    tokens_out: Annotated[int, typer.Option(parser=counting, metavar="N", help="Tokens of an answer.")] = 300,
    latency: Annotated[
        float | None, typer.Option(parser=real, metavar="S", help="Seconds that a whole answer may take.")
    ] = None,
    host_memory: _Memory = "128GiB",
    allow: _Allow = "",
) -> None:
    """A fleet for a day's queries: machines, dollars a query and a million tokens; rented, bought, by an API."""
    _check(cost)
    if queries_per_day <= 0:
        raise UsageError(f"--queries-per-day {queries_per_day:g} must be above 0; write it as 1e6")
    facts = described(model_or_shape(model, None), None, "auto", None)
    if tokens_in + tokens_out > facts.max_model_len:
        raise UsageError(
            f"--tokens-in {tokens_in} and --tokens-out {tokens_out} exceed the {facts.max_model_len} that {facts.name} "
            "takes; shorten one of them"
        )
    load = late("economics.serving").load(queries_per_day, tokens_in, tokens_out)
    report = late("economics.questions").serve_report(
        facts, load, _place(machine, host_memory), latency, _formats(allow), _changes(cost)
    )
    _write(report, cost)


def search(
    cost: CostFlags,
    model: Annotated[str, typer.Option(metavar="MODEL", help="The model that reads and summarises today.")] = SMALL,
    machine: Annotated[str, typer.Option(metavar="NAME", help=f"The rented machine. {_Device}")] = RENTED,
    card: Annotated[str, typer.Option(metavar="NAME", help="The card of one's own.")] = CARD,
    host_memory: _Memory = "64GiB",
    allow: _Allow = "",
    only_2023: Annotated[bool, typer.Option("--only-2023", help="The analysis of January 2023 alone.")] = False,
) -> None:
    """A search engine answered by a language model: a query's cost beside its revenue, in January 2023 and today."""
    _check(cost)
    facts = described(model_or_shape(model, None), None, "auto", None)
    report = late("economics.questions").search_report(
        facts, _place(machine, host_memory), _place(card, host_memory), _formats(allow), _changes(cost),
        only_2023=only_2023,
    )  # fmt: skip
    _write(report, cost)


def train(
    cost: CostFlags,
    adapter: AdapterFlags,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="gpt3, palm, chinchilla, ...", show_default=False)
    ] = None,
    params: Annotated[float | None, typer.Option(parser=real, metavar="N", help="Parameters.")] = None,
    tokens: Annotated[float | None, typer.Option(parser=real, metavar="N", help="Tokens of training.")] = None,
    loss: Annotated[
        float | None, typer.Option(parser=real, metavar="L", help="The cheapest model of this loss, nats a token.")
    ] = None,
    served_tokens: Annotated[
        float | None, typer.Option(parser=real, metavar="N", help="Tokens that the model will serve in its life.")
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"The chips; {RENTED} by default, {CARD} with --adapter. {_Device}"),
    ] = None,
    mfu: Annotated[float | None, typer.Option(parser=real, metavar="SHARE", help="Of the peak; 0.46 for PaLM.")] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Of the loss law: {FIT}, the default, or besiroglu-2024.")
    ] = None,
) -> None:
    """A training run: arithmetic, utilisation, failures, money; or the cheapest model of a loss.

    A known model is shown in January 2023 first. With --adapter: fine-tuning of MODEL on one card, --tokens counted as
    often as they are read. Windlass does not train yet: that is a forecast of what it would cost on its streaming.
    """
    _check(cost)
    if adapter.adapter:
        others = {"--params": params, "--loss": loss, "--served-tokens": served_tokens, "--mfu": mfu, "--fit": fit}
        report = _adapter(model, tokens, machine, adapter, others, cost)
        _write(report, cost)
        return
    machine, fit = machine or RENTED, fit or FIT
    questions, training = late("economics.questions"), late("economics.training")
    changes = _changes(cost, {} if mfu is None else {"mfu": mfu})
    chips = training.chip(_known(machine), late("economics.prices").machine_prices(machine))
    for flag, value in (("--params", params), ("--tokens", tokens), ("--served-tokens", served_tokens), ("--mfu", mfu)):
        if value is not None and value <= 0:
            raise UsageError(f"{flag} {value:g} must be above 0; write it as {'0.4' if flag == '--mfu' else '7e9'}")
    if mfu is not None and mfu > 1:
        raise UsageError(f"--mfu {mfu:g} is above 1, the whole peak; write it as 0.4")
    if sum((model is not None, params is not None or tokens is not None, loss is not None)) != 1:
        raise UsageError(
            "name MODEL, or --params and --tokens, or --loss: one of the three, as in windlass cost train gpt3"
        )
    if model is not None:
        title, sizes = training.model_named(model)
    elif loss is not None:
        title, sizes = questions.cheapest_model(loss, chips, fit, served_tokens, changes)
    elif params is None or tokens is None:
        raise UsageError("--params and --tokens belong together; give both, as in --params 70e9 --tokens 1.4e12")
    else:
        counted = late("economics.number_text").count_text
        title = f"{counted(params)} parameters on {counted(tokens)} tokens"
        sizes = training.model_of(params, tokens)
    report = questions.training_report(title, sizes, chips, fit, served_tokens, changes, with_2023=model is not None)
    _write(report, cost)


def _adapter(
    model: str | None, tokens: float | None, machine: str | None, flags: AdapterFlags, others: Mapping[str, object],
    cost: CostFlags,
) -> Any:  # fmt: skip
    """The report of --adapter. Raises UsageError, also for a flag of training from nothing."""
    for flag, value in others.items():
        if value is not None:
            raise UsageError(f"{flag} {value} has no effect with --adapter; leave it out")
    length = flags.seq_len or LENGTH
    if model is None or tokens is None:
        raise UsageError(
            "--adapter wants MODEL and --tokens, as in windlass cost train llama-3-8b --adapter --tokens 1e7"
        )
    if tokens < length:
        raise UsageError(
            f"--tokens {tokens:g} are fewer than one sequence of {length}; give more, or a lower --seq-len"
        )
    facts = described(model_or_shape(model, None), None, "auto", None)
    if length > facts.max_model_len:
        raise UsageError(f"--seq-len {length} exceeds the {facts.max_model_len} that {facts.name} takes; shorten it")
    here, there = _place(machine or CARD, flags.host_memory or MEMORY), _place(flags.rent or RENTED, None)
    return late("economics.questions").adapter_report(
        facts, flags.rank or RANK, tokens, length, here, there, _formats(flags.allow or ""), _changes(cost)
    )


def trajectory(
    cost: CostFlags,
    model: Annotated[str, typer.Option(metavar="MODEL", help="The model on one card, at the end.")] = SMALL,
    card: Annotated[str, typer.Option(metavar="NAME", help="The card of one's own.")] = CARD,
) -> None:
    """A token of GPT-3's quality, and training it, year by year; old prices stay with their date."""
    _check(cost)
    facts = described(model_or_shape(model, None), None, "auto", None)
    _write(late("economics.questions").trajectory_report(facts, _place(card, None), _changes(cost)), cost)


def _check(cost: CostFlags) -> None:
    """What cannot work is said before anything is computed. Raises UsageError."""
    if cost.plot is not None:
        require_plotting()
        if cost.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise UsageError(f"--plot {cost.plot} must end in .png, .svg or .pdf; write it as cost.png")


def _changes(cost: CostFlags, more: dict[str, float] | None = None) -> Any:
    sets = late("economics.assumption_sets")
    settings = sets.settings_of(cost.settings or []) | (more or {})
    return late("economics.questions").Changes(late("economics.vocabulary").own_assumptions(cost.assumptions), settings)


def _known(device: str) -> str:
    """The name of a device. Raises UsageError with the nearest."""
    if machine_named(device).device is None or device not in catalogue():
        raise UsageError(f"--machine {device} is no card of the catalogue; use one of {', '.join(catalogue())}")
    return device


def _place(device: str, host_memory: str | None) -> Any:
    """A machine of the catalogue, beside a host with so much memory."""
    memory = parse_size(host_memory) if host_memory is not None else None
    machine = machine_named(_known(device), host_memory=memory)
    limits = LimitFlags(host_memory=host_memory).limits(False)
    return late("economics.questions").Place(machine, device, limits)


def _formats(allow: str) -> tuple[str, ...]:
    return LimitFlags(allow=allow).formats


def _write(report: Any, cost: CostFlags) -> None:
    if cost.plot is not None:
        late("economics.pictures").draw_costs(report, Path(cost.plot))
    text = json.dumps(report.as_dict()) if cost.json else "\n".join(report.lines(cost.explain))
    sys.stdout.write(text + "\n")


VERBS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    (job, JOB_EXAMPLES),
    (serve, SERVE_EXAMPLES),
    (search, SEARCH_EXAMPLES),
    (train, TRAIN_EXAMPLES),
    (trajectory, TRAJECTORY_EXAMPLES),
)
