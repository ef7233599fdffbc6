"""A model that fits: Windlass against transformers' own generate, one process, alternating rounds.

Run: python -m benchmarks resident MODEL_FOLDER [--batches 1 32] [--rounds 5] [--gen-len 16]

Both hold the 6.03 GB model in memory (14 GB in all). Prompts of 32 tokens, greedy. A decode pass is
the median of the passes of a round; transformers' are timed by a stopping criterion, which it asks after every token.
"""

import argparse
import random
import time
from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks.harness import llama_3b, machine, median
from windlass import LLM, SamplingParams
from windlass.facts.workload import Workload

LENGTH = 32


def transformers_round(model: torch.nn.Module, prompts: list[list[int]], gen_len: int) -> tuple[float, float]:
    """Seconds of the prefill, and of a decode pass."""
    ids, times = torch.tensor(prompts), []

    def note(ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        times.append(time.perf_counter())
        return torch.zeros(ids.shape[0], dtype=torch.bool)

    start = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=gen_len, min_new_tokens=gen_len,
            do_sample=False, pad_token_id=0, stopping_criteria=[note],
        )  # fmt: skip
    return times[0] - start, median([after - before for before, after in pairwise(times)])


def windlass_round(llm: LLM, prompts: list[list[int]], gen_len: int) -> tuple[float, float]:
    """The same of ours, by the same clock: when each token of the whole batch is there."""
    params = SamplingParams(max_tokens=gen_len, temperature=0.0, ignore_eos=True)
    start, times = time.perf_counter(), []
    for number, _ in enumerate(llm.stream([{"prompt_token_ids": prompt} for prompt in prompts], params), 1):
        if number % len(prompts) == 0:
            times.append(time.perf_counter())
    return times[0] - start, median([after - before for before, after in pairwise(times)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gen-len", type=int, default=16)
    options = parser.parse_args()
    folder = llama_3b(options.model)
    print(machine())
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    draw = random.Random(0)
    with LLM(folder) as llm:
        llm.prepare(Workload(max(options.batches), LENGTH, options.gen_len))
        for batch in options.batches:
            rounds = []
            for _ in range(options.rounds + 1):
                prompts = [draw.choices(range(3, 259), k=LENGTH) for _ in range(batch)]
                ours = windlass_round(llm, prompts, options.gen_len)
                rounds.append((ours, transformers_round(theirs, prompts, options.gen_len)))
            report(batch, rounds[1:])


def report(batch: int, rounds: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    for index, phase in enumerate(("prefill", "decode pass")):
        ours, theirs = (median([each[side][index] for each in rounds]) for side in (0, 1))
        ratio = median([each[0][index] / each[1][index] for each in rounds])
        print(
            f"batch {batch:2d} {phase:11s} windlass {ours:.3f} s, transformers {theirs:.3f} s, "
            f"ratio {ratio:.2f} (aim 1.05)",
            flush=True,
        )


if __name__ == "__main__":
    main()
