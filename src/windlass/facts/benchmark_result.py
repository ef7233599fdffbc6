"""What a benchmark was asked to do and what it measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from windlass.errors import UsageError
from windlass.facts.plan import Plan
from windlass.facts.run_report import RunReport
from windlass.units import format_seconds


@dataclass(frozen=True, slots=True)
class BenchmarkWork:
    """`num_prompts` prompts of `prompt_len` random tokens, `gen_len` generated for each, all of it `rounds` times."""

    prompt_len: int = 16
    gen_len: int = 32
    num_prompts: int = 32
    rounds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt_len", "gen_len", "num_prompts", "rounds"):
            value = self.__getattribute__(name)
            if value < 1:
                raise UsageError(f"{name} must be 1 or more, got {value}")


@dataclass(frozen=True, slots=True)
class BenchmarkRound:
    """One round. Rates in tokens/s."""

    prefill_rate: float
    decode_rate: float
    seconds_per_pass: float


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """`report` covers all rounds, run by `plan`."""

    model: str
    work: BenchmarkWork
    plan: Plan
    rounds: tuple[BenchmarkRound, ...]
    report: RunReport

    def as_dict(self) -> dict[str, object]:
        """For `--json`: the settings, every field of the report, each round, and the plan but for its long lists."""
        measured = {"rounds_measured": [asdict(each) for each in self.rounds], "plan": self.plan.summary()}
        return {"model": self.model} | asdict(self.work) | self.report.as_dict() | measured

    def lines(self) -> list[str]:
        """For people."""
        work = self.work
        lines = [f"work     {work.num_prompts} prompts of {work.prompt_len} tokens, {work.gen_len} generated for each"]
        lines += self.report.lines()
        if len(self.rounds) > 1:
            lines += [
                f"rounds   {len(self.rounds)}, medians (least to most): "
                f"prefill {_spread([each.prefill_rate for each in self.rounds])} tok/s, "
                f"decode {_spread([each.decode_rate for each in self.rounds])} tok/s, "
                f"{format_seconds(median(each.seconds_per_pass for each in self.rounds))} a pass"
            ]
        return lines


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
