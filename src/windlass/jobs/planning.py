"""Plans a job before it is run, on this machine or another: where every byte will live, how fast it will go, and why.

No torch here: what is not measured by a run is estimated (planner.estimate).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from windlass.errors import BudgetError, UsageError
from windlass.facts.batch_row import BatchRow
from windlass.facts.catalogue import machine_named
from windlass.facts.machine import Machine
from windlass.facts.machine_table import rates_line
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.plan_file import PlanFile, identity
from windlass.facts.time_span import TimeSpan
from windlass.facts.workload import Workload
from windlass.jobs.prompt_lengths import prompt_lengths
from windlass.jobs.question_file import read_rows
from windlass.planner.cost import timeline
from windlass.planner.estimate import Limits, estimated_demands
from windlass.planner.explain import Altered, Change, Explanation, explained
from windlass.planner.layer_work import slice_works
from windlass.planner.model_summary import model_lines
from windlass.planner.rule import RUN_TO_RUN, Demands
from windlass.planner.search import Candidate, Found, cheapest, explore
from windlass.planner.smaller_weights import smaller_weights
from windlass.units import format_bytes, format_seconds

# Where there is no device, what one would bring: the most common card that people ask about.
SECOND_HAND = "rtx3090"


@dataclass(frozen=True, slots=True)
class Planned:
    """A job, planned. `format` is that of the weights where a smaller one than the checkpoint's was allowed and won."""

    model: ModelFacts
    machine: Machine
    workload: Workload
    chosen: Candidate
    explanation: Explanation
    format: str | None

    @property
    def file(self) -> PlanFile:
        """The plan as `--plan` takes it. Raises UsageError where it is for another checkpoint."""
        if self.format is not None:
            raise UsageError(
                f"the plan is for {self.format} weights, which this checkpoint does not hold; plan with --quantization "
                f"{self.format} to use -o, or leave --allow out"
            )
        return PlanFile(identity(self.model), self.chosen.plan)

    def timeline(self) -> list[TimeSpan]:
        """The first block, span by span."""
        return timeline(self.model, self.chosen.plan, self.machine, self.workload)

    def lines(self) -> list[str]:
        """For people."""
        work, inexact = self.workload, f", weights in {self.format} (not lossless)" if self.format else ""
        return [
            *model_lines(self.model),
            f"machine  {self.machine.name} ({self.machine.measured})",
            f"rates    {rates_line(self.machine, self.model.dtype, self.chosen.plan.block_size)}",
            f"job      {work.num_prompts} prompts of {work.mean_prompt_len:.0f} tokens{self._shared()}, "
            f"{work.gen_len} generated each{inexact}",
            *self.chosen.plan.lines(),
            *self._experts(),
            *self.explanation.lines(),
        ]

    def _shared(self) -> str:
        """What prompts begin with alike is read once, page by page."""
        read, work = self.chosen.forecast.prefill.tokens, self.workload
        return f" ({read / work.num_prompts:.0f} of them to be read)" if work.shared_lens else ""

    def _experts(self) -> list[str]:
        """What the experts that do not stay add to a pass, if each token chooses at random."""
        plan = self.chosen.plan
        works = [work.experts for work in slice_works(self.model, plan) if work.experts is not None]
        disk = sum(work.distinct(plan.block_size) * work.disk_bytes for work in works)
        link = sum(work.distinct(plan.block_size) * work.host_bytes for work in works)
        told = [f"{format_bytes(disk)} from disk"] if disk else []
        told += [f"{format_bytes(link)} over the link"] if link else []
        return [f"experts  about {' and '.join(told)} more a pass of {plan.block_size} tokens"] if told else []

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        work = self.workload
        return {
            "model": self.model.name,
            "machine": self.machine.name,
            "format": self.format,
            "workload": {
                "num_prompts": work.num_prompts,
                "mean_prompt_len": work.mean_prompt_len,
                "prompt_len": work.prompt_len,
                "gen_len": work.gen_len,
            },
            "plan": self.chosen.plan.summary() | {"pass_tokens": self.chosen.plan.pass_tokens},
            "forecast": self.chosen.forecast.as_dict(),
            "explanation": self.explanation.as_dict(),
        }


def planned(
    model: ModelFacts,
    workload: Workload,
    machine: Machine,
    limits: Limits,
    seconds: float | None = None,
    allowed: Sequence[str] = (),
) -> Planned:
    """The fastest plan, or with `seconds` the one that takes least memory and is done by then.

    Raises BudgetError where nothing fits, or nothing is done in time, with what is missing; UsageError for limits that
    have no effect on this machine.
    """
    demands = estimated_demands(model, workload, machine, limits)
    best_model, best_format, found = model, None, explore(model, workload, demands, machine)
    for name in allowed:
        smaller = smaller_weights(model, name)
        other = explore(smaller, workload, demands, machine)
        if other.best.forecast.seconds < found.best.forecast.seconds:
            best_model, best_format, found = smaller, name, other
    reason = explained(best_model, workload, demands, machine, found, _a_device(best_model, workload, machine, limits))
    chosen = found.best if seconds is None else _in_time(found, seconds, reason)
    if seconds is not None and chosen is not found.best:
        reason = replace(reason, best=chosen, runner_up=found.best)
    return Planned(best_model, machine, workload, chosen, reason, best_format)


def workload_of(path: str, folder: str | None, most_tokens: int) -> tuple[Workload, int]:
    """The work in a file of prompts, their lengths counted by the tokenizer in `folder`. Raises UsageError.

    `most_tokens` is how much a row generates that does not say; rows that are wrong are left out, as a run does, and
    their number comes second.
    """
    all_rows = read_rows(path)
    rows = [row for row in all_rows if isinstance(row, BatchRow)]
    if not rows:
        raise UsageError(f"{path} holds no row that can be answered; see what `windlass batch` says of it")
    lens, shared, generated = list[int](), list[int](), list[int]()
    found = prompt_lengths(rows, folder)
    for row, length, begun in zip(rows, found.lens, found.shared, strict=True):
        copies, wanted = row.body.sampling.get("n", 1), row.body.sampling.get("max_tokens", most_tokens)
        assert isinstance(copies, int)
        lens += [max(1, length)] * copies
        # Further answers to a prompt have nothing to read.
        shared += [min(begun, length - 1), *[max(1, length)] * (copies - 1)] if length else [0] * copies
        generated += [wanted if isinstance(wanted, int) else most_tokens] * copies
    each = () if len(set(generated)) == 1 else tuple(generated)
    alike = tuple(shared) if any(shared) else ()
    most = tuple(length + more - 1 for length, more in zip(lens, generated, strict=True))
    work = Workload(
        len(lens), max(lens), max(generated), tuple(lens), gen_lens=each, shared_lens=alike, reserved_lens=most
    )
    return work, len(all_rows) - len(rows)


def _a_device(model: ModelFacts, workload: Workload, machine: Machine, limits: Limits) -> list[Altered]:
    """The same job with a device beside the host, where there is none."""
    if machine.device is not None:
        return []
    with_one = machine_named(SECOND_HAND, here=machine)
    demands: Demands = estimated_demands(model, workload, with_one, replace(limits, on_host=False))
    return [Altered(f"a device ({SECOND_HAND})", model, demands, with_one)]


def _in_time(found: Found, seconds: float, reason: Explanation) -> Candidate:
    """The candidate that takes least memory of those done in time, its budgets cut to what it takes."""
    chosen = cheapest(found, seconds)
    if chosen is not None:
        return Candidate(_cut_to_size(chosen), chosen.forecast)
    enough = [change for change in reason.changes if change.seconds <= seconds]
    advice = " or ".join(map(_with_time, enough[:3])) or f"fewer prompts: {_share(found, seconds):.0%} of them are done"
    raise BudgetError(
        f"the fastest plan takes {format_seconds(found.best.forecast.seconds)}, there are {format_seconds(seconds)}: "
        f"{format_seconds(found.best.forecast.seconds - seconds)} are missing; it would do with {advice}"
    )


def _cut_to_size(candidate: Candidate) -> Plan:
    plan = candidate.plan
    memory = replace(plan.memory, budget=plan.memory.budget - max(0, plan.memory.spare - RUN_TO_RUN))
    host = plan.host and replace(plan.host, budget=plan.host.budget - max(0, plan.host.spare - RUN_TO_RUN))
    return replace(plan, memory=memory, host=host)


def _with_time(change: Change) -> str:
    return f"{change.what} ({format_seconds(change.seconds)})"


def _share(found: Found, seconds: float) -> float:
    return min(1.0, seconds / found.best.forecast.seconds)
