"""What fine-tuning by a low-rank adapter costs on one card: its size counted, its seconds from the planner's forecast.

Windlass does not train yet. With gradient checkpointing a step walks the frozen model three times: forward, forward
again, and backward through its activations, since no gradient of a frozen weight is computed (Hu et al. 2021, LoRA;
Chen et al. 2016, Training deep nets with sublinear memory cost). Each is 2 FLOP a parameter and token, as reading a
token is, so that a walk is priced at what the planner says of reading the same tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from windlass.economics.assumption import Assumption, exact
from windlass.economics.assumption_sets import asked, packaged
from windlass.economics.formula import Formula
from windlass.economics.inference import Inference
from windlass.economics.job import PRICED, job_pool
from windlass.economics.money import OWNED_HOUR
from windlass.economics.sheet import Sheet, make_sheet
from windlass.errors import UsageError
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits, estimated_demands
from windlass.units import format_bytes

SIZES = (
    Formula("trainable_parameters", "rank * matrix_sides", "parameters", "rank * (in + out) for every matrix"),
    Formula(
        "adapter_state_bytes", "trainable_parameters * optimiser_bytes_per_parameter", "bytes",
        "the adapter, its gradients and what the optimiser keeps, beside the frozen weights",
    ),
)  # fmt: skip
TUNE = (
    *OWNED_HOUR,
    *SIZES,
    Formula("checkpoint_bytes", "batch * sequence_tokens * kept_bytes_per_token", "bytes", "hidden states of a step"),
    Formula("steps", "ceil(rows / batch)", "steps", "of the block that the plan has in the model at once"),
    Formula("walks", "forward_walks + recomputed_walks + backward_walks", "walks", "of the frozen model, a step"),
    Formula("tuning_seconds", "walks * prefill_seconds", "s", "each as long as reading the same tokens"),
    Formula("job_seconds", "load_seconds + tuning_seconds", "s", "the whole run here"),
    Formula(
        "bytes_written", "2 * trainable_parameters + walks * bytes_spilled + bytes_copied", "bytes",
        "the adapter in 16 bits, what fits no memory, and a packed copy of the weights where one is made",
    ),
    *PRICED,
    Formula("own_cost_per_million_tokens", "own_cost / tokens_in * 1e6", "USD/Mtoken", "trained on"),
)  # fmt: skip
RENT = (
    Formula("rented_seconds", "rented_load_seconds + walks * rented_prefill_seconds", "s", "the same run there"),
    Formula("rented_hours", "rented_seconds / 3600 + setup_hours", "h", "the run on the rented card, and its start"),
    Formula("rented_cost", "rented_hours * rent_per_hour", "USD", "on the rented card"),
    Formula(
        "break_even_runs", "volume(machine_price, rented_cost - running_cost)", "runs",
        "after which the machine has earned its price, beside renting",
    ),
)  # fmt: skip
RESULTS = (
    "own_cost", "job_seconds", "energy", "electricity_cost", "capital_cost", "running_cost", "trainable_parameters",
    "adapter_state_bytes", "batch", "steps", "checkpoint_bytes", "own_cost_per_million_tokens",
)  # fmt: skip
RENT_RESULTS = ("rented_hours", "rented_cost", "break_even_runs")


@dataclass(frozen=True, slots=True)
class Matrices:
    """The matrices of a model's layers, experts among them: how many numbers, and the sum of (in + out) over all."""

    parameters: int
    sides: int


def adapted_matrices(model: ModelFacts) -> Matrices:
    """What an adapter of all layers stands beside; not embedding, head, norms and biases."""
    shapes = [
        shape
        for group in model.groups
        if group.layer is not None
        for source in group.sources
        if not source.parameter.endswith("bias")
        for shape in source.shapes
        if len(shape) == 2
    ]
    return Matrices(sum(map(math.prod, shapes)), sum(map(sum, shapes)))


def tuning_work(tokens: float, length: int) -> Workload:
    """So many tokens in sequences of `length`, the last one filled up; every token's logits are wanted."""
    return Workload(math.ceil(tokens / length), length, 0, scored=True)


def adapter_pool(model: ModelFacts, rank: int, length: int) -> dict[str, Assumption]:
    """What is known before any machine is named. Raises UsageError for a rank with which nothing is saved."""
    found = adapted_matrices(model)
    most = found.parameters // max(1, found.sides)
    if rank > most:
        raise UsageError(
            f"--rank {rank} trains {rank * found.sides:,} parameters, and the matrices of {model.name} have "
            f"{found.parameters:,}; use at most {most}, and 4 to 64 as is usual"
        )
    kept = float(model.num_layers * model.row_bytes)
    return packaged("today", "adapter") | {
        "rank": asked("rank", rank, "dimensions"),
        "sequence_tokens": asked("sequence_tokens", length, "tokens"),
        "matrix_sides": exact("matrix_sides", found.sides, "elements", f"the shapes of {model.name}", "now"),
        "kept_bytes_per_token": exact(
            "kept_bytes_per_token", kept, "bytes/token", "a hidden state a layer, which checkpointing keeps", "now"
        ),
    }


def beside_adapter(
    model: ModelFacts, work: Workload, machine: Machine, limits: Limits, pool: Mapping[str, Assumption]
) -> Limits:
    """`limits` of a card, less what the adapter and its optimiser take there. Raises UsageError where they leave
    nothing."""
    state = make_sheet("the adapter", SIZES, ("adapter_state_bytes",), pool).value("adapter_state_bytes")
    budget = estimated_demands(model, work, machine, limits).budget
    if state >= budget:
        raise UsageError(
            f"--rank {pool['rank'].value:g} keeps {format_bytes(int(state))} of adapter and optimiser, and "
            f"{machine.name} has {format_bytes(budget)}; use a smaller rank or a larger card"
        )
    return replace(limits, gpu_memory=budget - math.ceil(state))


def tuning_pool(here: Inference, there: Inference) -> dict[str, Assumption]:
    """What the forecasts of reading the tokens once say, here and on the rented card."""
    read = there.assumptions()
    rented = {
        f"rented_{name}": replace(read[name], name=f"rented_{name}") for name in ("load_seconds", "prefill_seconds")
    }
    return job_pool(here) | rented


def adapter_sheet(title: str, pool: Mapping[str, Assumption], *, rented: bool) -> Sheet:
    """A run; `rented` says whether `pool` holds the rent of a card to compare it with."""
    formulas, results = ((*TUNE, *RENT), (*RESULTS, *RENT_RESULTS)) if rented else (TUNE, RESULTS)
    return make_sheet(title, formulas, results, packaged("today", "operation") | dict(pool))
