"""Decode of 32 sequences of 512 tokens under a hard 6 GB cap: attention's share of a pass, and its rate.

Run: python -m benchmarks cache MODEL_FOLDER [--rounds 3] [--kv-cache-dtype int8]   (as root, Linux)
"""

import argparse
from pathlib import Path

from benchmarks.harness import llama_3b, machine, median, windlass_bench

CAP, BUDGET = "6000M", "5800MiB"
FLAGS = ("--num-prompts", "32", "--prompt-len", "512", "--gen-len", "8", "--host-memory", BUDGET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kv-cache-dtype", default="auto", help="auto, int8 or int4")
    options = parser.parse_args()
    model = llama_3b(options.model)
    print(machine())
    rates = []
    for number in range(1, options.rounds + 1):
        measured = windlass_bench(model, *FLAGS, "--kv-cache-dtype", options.kv_cache_dtype, cap=CAP)
        seconds, nbytes = measured["attention_seconds"], measured["attention_bytes"]
        rates.append(nbytes / seconds)
        print(
            f"round {number}: {measured['seconds_per_pass']:.2f} s a pass, attention "
            f"{seconds / measured['decode_seconds']:.0%} of it, keys and values read at {rates[-1] / 1e9:.1f} GB/s; "
            f"{measured['plan']['streamed_bytes'] / 1e9:.2f} GB of weights streamed",
            flush=True,
        )
    print(f"median rate of keys and values: {median(rates) / 1e9:.1f} GB/s (aim 6)")


if __name__ == "__main__":
    main()
