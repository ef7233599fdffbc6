"""`windlass quantize` beside what it cannot beat: the slower of reading the disk and of packing without a pause.

Run: python -m benchmarks quantize MODEL_FOLDER [--to int4] [--rounds 3] [--cap 1500M] [--out FOLDER]

MODEL_FOLDER is the 6.03 GB Llama shape, written if it is not there; the packed copy is removed after each round. Each
round runs in a process of its own under a hard cap that counts the page cache. The disk's rate is the best right before
and after. The packing rate is that of two threads that pack drawn weights in memory and do nothing else, as large as
the model's pieces, again right before and after; beside it stands what the threads reached while they packed.
"""

import argparse
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.harness import best_disk_rate, llama_3b, machine, median, run
from windlass.kernels.quantiser import PACKINGS, packed, packer_name
from windlass.settings import num_threads

AIM = 0.7
ROWS, COLUMNS = 512, 8192
"""Of the drawn weights: a piece of 8 MiB in bfloat16."""
PIECES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--to", choices=tuple(PACKINGS), default="int4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap", default="1500M")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = llama_3b(options.model)
    out = options.out or model.with_name(f"{model.name}-benchmark-{options.to}")
    print(f"{machine()}; {packer_name()}")
    shares = []
    for number in range(1, options.rounds + 1):
        disk, packing = best_disk_rate(model), packing_rate(options.to)
        command = [sys.executable, "-m", "windlass", "quantize", str(model), "--to", options.to, "-o", str(out)]
        try:
            done = json.loads(run([*command, "--json", "--quiet"], options.cap).splitlines()[-1])
        finally:
            shutil.rmtree(out, ignore_errors=True)
        disk, packing = max(disk, best_disk_rate(model)), max(packing, packing_rate(options.to))
        least = max(done["bytes_in"] / disk, done["weights"] / packing)
        shares.append(least / done["seconds"])
        print(
            f"round {number}: {done['seconds']:.1f} s under {options.cap}, {done['bytes_in'] / 1e9:.2f} GB in at "
            f"{done['read_rate'] / 1e9:.2f} GB/s (disk {disk / 1e9:.2f}), {done['weights'] / 1e9:.2f} G weights at "
            f"{done['weights_rate'] / 1e6:.1f} million/s (without a pause {packing / 1e6:.1f}, while packing "
            f"{done['packing_rate'] / 1e6:.1f}), {done['bytes_out'] / 1e9:.2f} GB out; {shares[-1]:.2f} of the limit",
            flush=True,
        )
    print(f"median {median(shares):.2f} of the slower of disk and packing (aim {AIM})")


def packing_rate(to: str) -> float:
    """Weights a second of all threads, for about as long as it takes to be sure."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(ROWS, COLUMNS, generator=generator).mul_(0.02).bfloat16() for _ in range(num_threads())]
    start = time.perf_counter()
    with ThreadPoolExecutor(num_threads()) as crew:
        list(crew.map(lambda number: packed(weights[number % len(weights)], PACKINGS[to]), range(PIECES)))
    return PIECES * ROWS * COLUMNS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
