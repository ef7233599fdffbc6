"""A 6.03 GB model under a hard 2.5 GB cap: Windlass, Accelerate and llama.cpp in alternating rounds.

Run: python -m benchmarks offload MODEL_FOLDER [--rounds 5] [--gen-len 32] [--peers PYTHON --gguf FILE]  (root, Linux)

MODEL_FOLDER is written if it is not there. Accelerate runs with this Python, llama.cpp with PYTHON, which has
llama-cpp-python; FILE is the model converted by the script beside the peers. Every run starts with a cold cache.
A pass is set against (6.03 GB less 1.0 GB kept resident) at the disk's best rate right before and after the run.
"""

import argparse
import re
import sys
from pathlib import Path

from benchmarks.harness import SHARED, best_disk_rate, llama_3b, machine, median, run, windlass_bench

# The cap counts the page cache too: what is left of it holds library code that is read now and then.
CAP, BUDGET = "2500M", "2350MiB"
PROMPTS, LENGTH = "32", "16"
LIMIT_BYTES = 6.03e9 - 1.0e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gen-len", type=int, default=32)
    parser.add_argument("--peers", default=None)
    parser.add_argument("--gguf", default=None)
    options = parser.parse_args()
    model, work = llama_3b(options.model), (PROMPTS, LENGTH, str(options.gen_len))
    peers = {"accelerate": [sys.executable, str(SHARED / "bench/peers/run_accelerate.py"), str(model), *work]}
    if options.peers and options.gguf:
        peers["llama.cpp"] = [options.peers, str(SHARED / "bench/peers/run_llama_cpp.py"), options.gguf, *work]
    print(machine())
    passes: dict[str, list[float]] = {name: [] for name in ("windlass", *peers)}
    against = []
    for number in range(1, options.rounds + 1):
        seconds, ratio, line = windlass_round(model, work)
        passes["windlass"].append(seconds)
        against.append(ratio)
        print(f"round {number} windlass    {line}", flush=True)
        for name, command in peers.items():
            out = run(command, CAP)
            found = re.search(r"decode ([\d.]+) s a pass", out)
            assert found is not None, out
            passes[name].append(float(found[1]))
            print(f"round {number} {name:11s} {out.strip().splitlines()[-1]}", flush=True)
    report(passes, against)


def windlass_round(model: Path, work: tuple[str, str, str]) -> tuple[float, float, str]:
    before = best_disk_rate(model)
    flags = ("--num-prompts", work[0], "--prompt-len", work[1], "--gen-len", work[2], "--host-memory", BUDGET)
    measured = windlass_bench(model, *flags, cap=CAP)
    rate = max(before, best_disk_rate(model))
    seconds = measured["seconds_per_pass"]
    ratio = seconds / (LIMIT_BYTES / rate)
    streamed = measured["plan"]["streamed_bytes"]
    line = (
        f"{seconds:.2f} s a pass, {ratio:.2f} times 5.03 GB at {rate / 1e9:.2f} GB/s; "
        f"{streamed / 1e9:.2f} GB streamed, {seconds / (streamed / rate):.2f} times their time; "
        f"waited {measured['wait_seconds']:.0f} s, "
        f"peak {measured['peak_memory'] / 2**20:.0f} MiB"
    )
    return seconds, ratio, line


def report(passes: dict[str, list[float]], against: list[float]) -> None:
    ours = median(passes["windlass"])
    print(f"\nmedian pass against the limit: {median(against):.2f} (aim 1.10)")
    for name, seconds in passes.items():
        print(f"{name:11s} median {median(seconds):6.2f} s a pass, {median(seconds) / ours:5.2f} times windlass")


if __name__ == "__main__":
    main()
