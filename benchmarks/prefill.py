"""Prefill of 8 prompts of 512 tokens against the bfloat16 matrix rate measured in the same run.

Run: python -m benchmarks prefill MODEL_FOLDER [--rounds 3] [--host-memory 2436MiB --cap 2500M]

The rate is the best of 4096 by 4096 products at 512, 1024 and 2048 rows, right before and after each round.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.harness import llama_3b, machine, median, windlass_bench
from windlass.memory.probe import measure_matmul

PROMPTS, LENGTH = 8, 512
LAYERS, HIDDEN, INTERMEDIATE, KV = 28, 3072, 8192, 1024


def flops() -> float:
    """Of the layers' matrices over all tokens, and of causal attention; the head sees last positions only."""
    matrices = LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KV + 3 * HIDDEN * INTERMEDIATE)
    attention = LAYERS * 2 * HIDDEN * LENGTH
    return 2.0 * PROMPTS * LENGTH * (matrices + attention / 2)


def matrix_rate() -> float:
    return max(measure_matmul(torch.bfloat16, rows, seconds=0.6) for rows in (512, 1024, 2048))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--host-memory", default=None)
    parser.add_argument("--cap", default=None)
    options = parser.parse_args()
    model = llama_3b(options.model)
    flags = ["--num-prompts", str(PROMPTS), "--prompt-len", str(LENGTH), "--gen-len", "1"]
    flags += ["--host-memory", options.host_memory] if options.host_memory else []
    print(machine())
    shares = []
    for number in range(1, options.rounds + 1):
        before = matrix_rate()
        measured = windlass_bench(model, *flags, cap=options.cap)
        rate = max(before, matrix_rate())
        reached = flops() / measured["prefill_seconds"]
        shares.append(reached / rate)
        print(
            f"round {number}: prefill {measured['prefill_seconds']:.1f} s, {reached / 1e9:.0f} GFLOP/s, "
            f"{shares[-1]:.2f} of {rate / 1e9:.0f} GFLOP/s",
            flush=True,
        )
    print(f"median share of the matrix rate: {median(shares):.2f} (aim 0.85)")


if __name__ == "__main__":
    main()
