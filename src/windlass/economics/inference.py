"""How fast a model answers on a machine: the planner's forecast, as assumptions that a sheet can take.

No utilisation is guessed: what the machine can do is in its profile or its datasheet, and the plan says what binds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.economics.assumption import Assumption, exact
from windlass.errors import BudgetError
from windlass.facts.forecast import Forecast
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits, estimated_demands
from windlass.planner.search import QUICK, Effort, explore
from windlass.planner.smaller_weights import smaller_weights
from windlass.planner.traffic import JobBytes, job_bytes

# Sequences in the model at once that a server is tried with.
BATCHES = (1, 4, 16, 64, 256)


@dataclass(frozen=True, slots=True)
class Inference:
    """A job on a machine, forecast. `format` is that of the weights where it is not the checkpoint's own."""

    model: str
    machine: Machine
    workload: Workload
    plan: Plan
    forecast: Forecast
    bytes: JobBytes
    weight_bytes: int
    format: str | None = None

    @property
    def source(self) -> str:
        """Where the figures come from."""
        weights = f" in {self.format}" if self.format else ""
        return f"forecast of `windlass plan` for {self.model}{weights} on {self.machine.name}"

    @property
    def is_offloaded(self) -> bool:
        """Whether weights travel each pass."""
        return bool(self.plan.streamed_bytes or self.plan.experts_travel)

    @property
    def placement(self) -> str:
        """For people: where the weights lie, in which format, and how many sequences are in the model at once."""
        weights = f"weights in {self.format}" if self.format else "weights as they are"
        where = "offloaded" if self.is_offloaded else "resident"
        return f"{weights}, {where}, a block of {self.plan.block_size}"

    def assumptions(self) -> dict[str, Assumption]:
        """Seconds, tokens, bytes and shares of busy time; the seconds with the range that forecasts are held to."""
        told, work = self.forecast, self.workload
        seconds = {"load_seconds": told.load_seconds, "prefill_seconds": told.prefill.seconds}
        seconds["decode_seconds"] = told.decode.seconds
        found = [
            Assumption(name, value, "s", self.source, "now", value * told.low, value * told.high)
            for name, value in seconds.items()
        ]
        counts = {
            "rows": (work.num_prompts, "rows"),
            "tokens_in": (work.num_prompts * work.mean_prompt_len, "tokens"),
            "tokens_out": (work.generated_tokens, "tokens"),
            "batch": (self.plan.block_size, "sequences"),
            "bytes_read": (self.bytes.read, "bytes"),
            "bytes_spilled": (self.bytes.written, "bytes"),
            **{name: (share, "share") for name, share in self.busy().items()},
        }
        found += [exact(name, float(value), unit, self.source, "now") for name, (value, unit) in counts.items()]
        return {each.name: each for each in found}

    def busy(self) -> dict[str, float]:
        """Shares of the job's time in which the card, and the host's processor, compute."""
        told = self.forecast

        def share(lane: str) -> float:
            seconds = told.prefill.lanes.get(lane, 0.0) + told.decode.lanes.get(lane, 0.0)
            return min(1.0, seconds / told.seconds) if told.seconds else 0.0

        on_device = self.plan.host is not None
        return {
            "card_busy": share("compute") if on_device else 0.0,
            "host_busy": share("host") if on_device else share("compute"),
        }


def inference(
    model: ModelFacts,
    workload: Workload,
    machine: Machine,
    limits: Limits,
    allowed: Sequence[str] = (),
    effort: Effort = QUICK,
) -> Inference:
    """The fastest plan, with the weights in one of the formats `allowed` where that is faster. Raises BudgetError.

    `effort` is that of the last search; formats are told apart by quick ones.
    """
    choices: list[tuple[str | None, ModelFacts]] = [(None, model)]
    choices += [(name, smaller_weights(model, name)) for name in allowed]
    found = [_forecast(each, workload, machine, limits, name, QUICK) for name, each in choices]
    place = min(range(len(found)), key=lambda place: found[place].forecast.seconds)
    if effort == QUICK:
        return found[place]
    name, each = choices[place]
    return _forecast(each, workload, machine, limits, name, effort)


def inferences(
    model: ModelFacts, prompt_len: int, gen_len: int, machine: Machine, limits: Limits, allowed: Sequence[str] = ()
) -> list[Inference]:
    """A block of each of the sizes of BATCHES that fits, smallest first; their seconds say what a server would give.

    Raises BudgetError where not even one sequence fits.
    """
    found: list[Inference] = []
    for batch in BATCHES:
        asked = Limits(limits.host_memory, limits.gpu_memory, limits.offload, batch, None, limits.on_host)
        try:
            one = inference(model, Workload(batch, prompt_len, gen_len), machine, asked, allowed)
        except BudgetError:
            if not found:
                raise
            break
        found.append(one)
    return found


def _forecast(
    model: ModelFacts, workload: Workload, machine: Machine, limits: Limits, name: str | None, effort: Effort
) -> Inference:
    found = explore(model, workload, estimated_demands(model, workload, machine, limits), machine, effort).best
    moved = job_bytes(model, found.plan, workload, found.forecast)
    return Inference(model.name, machine, workload, found.plan, found.forecast, moved, model.weight_bytes, name)
