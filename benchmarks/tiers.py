"""Three tiers on a simulated device behind a link of 2 GB/s: a decode pass beside the busiest of its lanes.

Run: python -m benchmarks tiers MODEL_FOLDER [--rounds 3] [--only weights|cache]

weights: the 6.03 GB Llama shape with 25 % of its weights on the device and the rest in host memory, 32 sequences of 16
tokens. cache: 32 sequences of 512 tokens, half of the keys and values in host memory, where the host attends to them.
Device and host share this machine's cores, so only what waits for the link can be hidden. Poison is off: it costs
memory bandwidth that a device would not miss.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import llama_3b, machine, median
from windlass import LLM, SamplingParams
from windlass.facts.run_report import RunReport
from windlass.facts.workload import Workload
from windlass.planner.residency import deepened, keep_share, place

DEVICE, DEVICE_MEMORY, HOST_MEMORY = "sim:rate=2GB/s,poison=off", "8GiB", "12GiB"
CASES = {"weights": (16, 0.0), "cache": (512, 0.5)}
SEQUENCES, ON_DEVICE = 32, 0.25


def measure(folder: Path, prompt_len: int, cache_on_host: float, gen_len: int, rounds: int) -> list[RunReport]:
    """A report for each round, each of an engine of its own."""
    workload, reports = Workload(SEQUENCES, prompt_len, gen_len), []
    with LLM(folder, device=DEVICE, gpu_memory=DEVICE_MEMORY, host_memory=HOST_MEMORY) as llm:
        plan, facts = llm.plan_for(workload), llm.opened.facts
    device = keep_share(facts, ON_DEVICE)
    placed = place(facts, plan, device, keep_share(facts, 1.0) - device)
    placed = deepened(replace(placed, host_pages=int(cache_on_host * placed.num_pages)))
    for number in range(rounds):
        draw = random.Random(number)
        prompts = [{"prompt_token_ids": draw.choices(range(3, 259), k=prompt_len)} for _ in range(SEQUENCES)]
        with LLM(folder, device=DEVICE, gpu_memory=DEVICE_MEMORY, host_memory=HOST_MEMORY, plan=placed) as llm:
            llm.generate(prompts, SamplingParams(max_tokens=gen_len, temperature=0.0, ignore_eos=True))
            reports.append(llm.report)
    return reports


def show(name: str, reports: list[RunReport]) -> None:
    """Each round and the medians."""
    slowest, sums = [], []
    for number, report in enumerate(reports, 1):
        lanes = {lane: seconds / report.decode_passes for lane, seconds in report.decode_lanes.items()}
        busiest = max(lanes.values())
        slowest.append(report.seconds_per_pass / busiest)
        sums.append(sum(lanes.values()) / busiest)
        each = ", ".join(f"{lane} {seconds:.2f}" for lane, seconds in lanes.items())
        print(
            f"{name} round {number}: {report.seconds_per_pass:.2f} s a pass, {slowest[-1]:.2f} times its busiest lane; "
            f"lanes {each} s, in all {sums[-1]:.2f} times the busiest",
            flush=True,
        )
    print(f"{name}: median {median(slowest):.2f} times the busiest lane, lanes in all {median(sums):.2f} times it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gen-len", type=int, default=8)
    parser.add_argument("--only", choices=CASES, default=None)
    options = parser.parse_args()
    folder = llama_3b(options.model)
    print(machine(), flush=True)
    for name, (prompt_len, cache_on_host) in CASES.items():
        if options.only in (None, name):
            show(name, measure(folder, prompt_len, cache_on_host, options.gen_len, options.rounds))


if __name__ == "__main__":
    main()
