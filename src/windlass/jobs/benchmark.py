"""Measures a model on prompts of random tokens, so that two machines or two settings are asked the same work."""

import random
from collections.abc import Callable, Iterator, Sequence

from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.benchmark_result import BenchmarkResult, BenchmarkRound, BenchmarkWork
from windlass.facts.flexgen_policy import FlexGenPolicy
from windlass.facts.plan import Plan
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.planner.flexgen import explain, translate

Say = Callable[[Sequence[str]], None]


def prepare(llm: LLM, work: BenchmarkWork, policy: FlexGenPolicy | None = None, say: Say | None = None) -> Plan:
    """Loads the model for the work, so that no round pays for it; `policy` places and cuts it by hand.

    The plan is told to `say` once it is known to be possible, before anything is loaded or written. Raises UsageError
    where the work is too long, and what LLM.plan_for and LLM.adopt raise.
    """
    limit = llm.opened.facts.max_model_len
    if work.prompt_len + work.gen_len > limit:
        raise UsageError(
            f"{work.prompt_len} prompt tokens and {work.gen_len} to generate exceed the {limit} that the model takes; "
            f"lower --prompt-len or --gen-len"
        )
    workload = Workload(work.num_prompts, work.prompt_len, work.gen_len)
    plan = llm.plan_for(workload)
    if policy is not None:
        plan = translate(llm.opened.facts, plan, policy)
    llm.adopt(plan)
    if say is not None:
        say(_lines(llm, plan, policy))
    return llm.prepare(workload)


def _lines(llm: LLM, plan: Plan, policy: FlexGenPolicy | None) -> list[str]:
    lines = plan.lines()
    if policy is not None:
        lines += explain(policy, llm.opened.facts, plan)
    if llm.opened.made is not None:
        lines += llm.opened.made.lines(llm.opened.groups, plan)
    return lines


def benchmark(llm: LLM, model: str, work: BenchmarkWork) -> BenchmarkResult:
    """Runs the rounds. Greedy and past end tokens, so that every sequence takes all its steps."""
    params = SamplingParams(max_tokens=work.gen_len, temperature=0.0, ignore_eos=True)
    rounds = []
    for prompts in _prompts(work, llm.opened.facts.vocab_size):
        before = llm.report
        llm.generate(prompts, params)
        rounds.append(_round(before, llm.report))
    return BenchmarkResult(model, work, llm.plan, tuple(rounds), llm.report)


def _prompts(work: BenchmarkWork, vocab_size: int) -> Iterator[list[dict[str, list[int]]]]:
    """The prompts of each round, the same for the same seed; no two rounds share one."""
    draw = random.Random(work.seed)
    for _ in range(work.rounds):
        yield [
            {"prompt_token_ids": draw.choices(range(vocab_size), k=work.prompt_len)} for _ in range(work.num_prompts)
        ]


def _round(before: RunReport, after: RunReport) -> BenchmarkRound:
    """What one round added to a report that covers everything the engine has done."""
    prefill_seconds = after.prefill_seconds - before.prefill_seconds
    decode_seconds = after.decode_seconds - before.decode_seconds
    passes = after.decode_passes - before.decode_passes
    return BenchmarkRound(
        prefill_rate=_per(after.prefill_tokens - before.prefill_tokens, prefill_seconds),
        decode_rate=_per(after.decode_tokens - before.decode_tokens, decode_seconds),
        seconds_per_pass=_per(decode_seconds, passes),
    )


def _per(amount: float, divisor: float) -> float:
    """0.0 where there was nothing to divide by: --gen-len 1 has no decode pass."""
    return amount / divisor if divisor else 0.0
