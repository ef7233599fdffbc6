"""Forecast beside measured: two shapes of about 3 billion parameters, three budgets, three blocks; and the plan chosen.

Run: python -m benchmarks forecast FOLDER [--only llama|opt|grid] [--gen-len 8] [--prompt-len 32]

Checkpoints are written below FOLDER where they are missing. The profile of the machine is what `windlass doctor` keeps.
Each run is a process of its own; right before it the disk is measured again, and the forecast is priced with that rate.
`grid` sets the time of the plan that the search picks for a job beside those of plans set by hand.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import llama_3b, machine, median, opt_3b, run
from windlass import LLM, SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.machine_profile import known_machine
from windlass.memory.probe import measure_disk
from windlass.planner.cost import forecast
from windlass.units import GIB, MIB

MODELS: dict[str, Callable[[Path], Path]] = {"llama": llama_3b, "opt": opt_3b}
SHARES = {"resident": 1.0, "half": 0.5, "quarter": 0.25}
BLOCKS = (1, 8, 64)
# What the process holds beside weights: libraries, activations, keys and values of the largest block.
BESIDE = 1600 * MIB
GRID_BLOCKS, GRID_MICRO_BATCHES, GRID_PROMPTS = (8, 32, 64), (128, 512), 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=(*MODELS, "grid"), default=None)
    parser.add_argument("--prompt-len", type=int, default=32)
    parser.add_argument("--gen-len", type=int, default=8)
    parser.add_argument("--case", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measured_case(**json.loads(options.case))))
        return
    print(machine(), flush=True)
    lengths = {"prompt_len": options.prompt_len, "gen_len": options.gen_len}
    rows = []
    for name, made in MODELS.items():
        if options.only in (None, name):
            folder = made(options.folder / name)
            known_machine(folder)
            rows += [tell(name, share, block, folder, lengths) for share in SHARES for block in BLOCKS]
    if rows:
        summary(rows)
    if options.only in (None, "grid"):
        folder = llama_3b(options.folder / "llama")
        known_machine(folder)
        grid(folder, lengths)


def measured_case(
    folder: str, host_memory: int, num_prompts: int, prompt_len: int, gen_len: int, **choices: Any
) -> dict[str, Any]:
    """One run in this process: what was forecast for it, and what it took."""
    draw, workload = random.Random(0), Workload(num_prompts, prompt_len, gen_len)
    rate = measure_disk(folder, seconds=3.0).rate
    known = known_machine(Path(folder))
    known = replace(known, disk=replace(known.disk, rate=rate), corrections={})
    with LLM(folder, host_memory=host_memory, **choices) as llm:
        plan = llm.prepare(workload)
        expected = forecast(llm.opened.facts, plan, known, workload)
        vocabulary = llm.opened.facts.vocab_size
        prompts = [{"prompt_token_ids": draw.choices(range(3, vocabulary), k=prompt_len)} for _ in range(num_prompts)]
        llm.generate(prompts, SamplingParams(max_tokens=gen_len, temperature=0.0, ignore_eos=True))
        report = llm.report
    return {
        "disk_rate": rate,
        "block": plan.block_size,
        "streamed": plan.streamed_bytes,
        "forecast": expected.as_dict(),
        "measured": report.as_dict(),
    }


def case(folder: Path, host_memory: int, **work: Any) -> dict[str, Any]:
    """The same in a process of its own."""
    asked = json.dumps({"folder": str(folder), "host_memory": host_memory, **work})
    out = run([sys.executable, "-m", "benchmarks", "forecast", str(folder), "--case", asked])
    return dict(json.loads(out.splitlines()[-1]))


def tell(name: str, share: str, block: int, folder: Path, lengths: dict[str, int]) -> tuple[float, float]:
    """A row of the table -> measured over forecast, of a decode pass and of the prompts."""
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    memory = BESIDE + int(SHARES[share] * weights) + (GIB if share == "resident" else 0)
    found = case(folder, memory, num_prompts=block, block_size=block, **lengths)
    expected, measured = found["forecast"], found["measured"]
    decode = measured["seconds_per_pass"] / expected["seconds_per_pass"]
    prefill = measured["prefill_seconds"] / expected["prefill"]["seconds"]
    print(
        f"| {name} | {share} | {block} | {found['streamed'] / 1e9:.2f} GB | {found['disk_rate'] / 1e9:.2f} GB/s "
        f"| {expected['seconds_per_pass']:.3f} s | {measured['seconds_per_pass']:.3f} s | {decode:.2f} "
        f"| {expected['prefill']['seconds']:.2f} s | {measured['prefill_seconds']:.2f} s | {prefill:.2f} |",
        flush=True,
    )
    return decode, prefill


def summary(rows: Sequence[tuple[float, float]]) -> None:
    """How far off, in all."""
    decode = [abs(ratio - 1) for ratio, _ in rows]
    prefill = [abs(ratio - 1) for _, ratio in rows]
    print(
        f"decode: {sum(error <= 0.15 for error in decode)} of {len(decode)} within 15 %, worst {max(decode):.0%}, "
        f"median {median(decode):.0%}; prefill: {sum(error <= 0.20 for error in prefill)} within 20 %, worst "
        f"{max(prefill):.0%}"
    )


def grid(folder: Path, lengths: dict[str, int]) -> None:
    """The plan that the search picks, and plans set by hand, for the same job."""
    memory = BESIDE + int(SHARES["quarter"] * sum(file.stat().st_size for file in folder.glob("*.safetensors")))
    hand = [{"block_size": b, "micro_batch_tokens": m} for b in GRID_BLOCKS for m in GRID_MICRO_BATCHES]
    seconds = {}
    for choice in ({}, *hand, {}):
        found = case(folder, memory, num_prompts=GRID_PROMPTS, **lengths, **choice)
        taken = found["measured"]["prefill_seconds"] + found["measured"]["decode_seconds"]
        name = ", ".join(f"{key} {value}" for key, value in choice.items()) or "the search's own"
        seconds[name] = min(taken, seconds.get(name, taken))
        print(f"grid: {name} (block {found['block']}): {taken:.1f} s", flush=True)
    own, best = seconds["the search's own"], min(seconds.values())
    print(f"grid: the search's own takes {own / best:.2f} times the best")


if __name__ == "__main__":
    main()
