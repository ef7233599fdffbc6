"""Int4 beside bfloat16 under a hard 1.5 GB cap, and, where all of it fits, beside llama.cpp's Q4_0.

Run: python -m benchmarks packed MODEL_FOLDER [--rounds 3] [--only streamed|resident] [--batches 1 32]
     [--peers PYTHON --gguf Q4_0_FILE]

MODEL_FOLDER is the 6.03 GB Llama shape, written if it is not there; MODEL_FOLDER-int4 beside it is written by
`windlass quantize`. Streamed runs start with a cold cache, each in a process of its own. The limit of an int4 pass is
the larger of reading what it streams, at the disk's best rate right before and after, and multiplying its weights with
so many rows at the best rate that bfloat16, int8 or int4 reaches in this very run.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.harness import SHARED, best_disk_rate, llama_3b, machine, median, run, windlass_bench
from windlass.facts.packing import Packing
from windlass.kernels.encodings.blocks import INT4, INT8, block_shape
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.packed_product import packed_linear

CAP = "1500M"
ROWS = (8, 32)
BATCHES = (1, 32)
LENGTH, GEN_LEN = "16", "16"
PARAMETERS = 3.0e9 - 32000 * 3072
"""Of the model, but for the embedding, which is looked up."""
WIDE, DEEP = 8192, 3072
"""The shape of the matrix that rates are measured on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("streamed", "resident"))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="resident sequences")
    parser.add_argument("--peers")
    parser.add_argument("--gguf")
    options = parser.parse_args()
    plain = llama_3b(options.model)
    packed = plain.with_name(f"{plain.name}-int4")
    if not (packed / "config.json").is_file():
        run(["windlass", "quantize", str(plain), "--to", "int4", "-o", str(packed)])
    print(machine())
    if options.only != "resident":
        for rows in ROWS:
            streamed(plain, packed, rows, options.rounds)
    if options.only != "streamed":
        for batch in options.batches:
            resident(packed, batch, options.rounds, options.peers, options.gguf)


def streamed(plain: Path, packed: Path, rows: int, rounds: int) -> None:
    """A pass of `rows` sequences, both formats in turn, and what the disk and the products allow."""
    work = ("--num-prompts", str(rows), "--prompt-len", LENGTH, "--gen-len", GEN_LEN)
    seconds: dict[str, list[float]] = {"bfloat16": [], "int4": []}
    limits = []
    best = max(product_rate(rows, make) for make in (bfloat16_product, int8_product, int4_product))
    multiplying = 2 * PARAMETERS * rows / best
    for number in range(1, rounds + 1):
        for name, folder in (("bfloat16", plain), ("int4", packed)):
            before = best_disk_rate(folder)
            measured = windlass_bench(folder, *work, cap=CAP)
            rate = max(before, best_disk_rate(folder))
            pass_seconds, bytes_ = measured["seconds_per_pass"], measured["plan"]["streamed_bytes"]
            seconds[name].append(pass_seconds)
            reading = bytes_ / rate
            line = (
                f"{pass_seconds:.2f} s a pass; {bytes_ / 1e9:.2f} GB streamed at {rate / 1e9:.2f} GB/s: {reading:.2f} s"
            )
            if name == "int4":
                limits.append(pass_seconds / max(reading, multiplying))
                line += f", multiplying {multiplying:.2f} s; {limits[-1]:.2f} times the larger"
            print(f"{rows:2d} sequences, round {number} {name:8s} {line}", flush=True)
    ratio = median(seconds["bfloat16"]) / median(seconds["int4"])
    print(
        f"{rows:2d} sequences: int4 {ratio:.2f} times as fast as bfloat16 under {CAP}; "
        f"{median(limits):.2f} times its limit (products at {best / 1e9:.0f} GFLOP/s)\n",
        flush=True,
    )


def resident(packed: Path, batch: int, rounds: int, peers: str | None, gguf: str | None) -> None:
    """A pass with everything in memory, in turn with llama.cpp."""
    ours, theirs = [], []
    for number in range(1, rounds + 1):
        measured = windlass_bench(
            packed, "--num-prompts", str(batch), "--prompt-len", LENGTH, "--gen-len", "32", "--host-memory", "8GiB"
        )
        ours.append(measured["seconds_per_pass"])
        line = f"windlass {ours[-1]:.3f} s a pass"
        if peers and gguf:
            script = str(SHARED / "bench/peers/run_llama_cpp.py")
            start = time.perf_counter()
            out = run([peers, script, gguf, str(batch), LENGTH, "32"])
            theirs.append(exact_pass(out, batch))
            line += f", llama.cpp {theirs[-1]:.3f} s ({time.perf_counter() - start:.0f} s in all)"
        print(f"resident, batch {batch:2d}, round {number} {line}", flush=True)
    beside = f"; {median(theirs) / median(ours):.2f} of llama.cpp's speed (aim 0.8)" if theirs else ""
    print(f"resident, batch {batch:2d}: {median(ours):.3f} s a pass{beside}\n", flush=True)


def exact_pass(out: str, batch: int) -> float:
    """Seconds a pass from the tokens a second, which are printed with more digits."""
    found = re.search(r"([\d.]+) tok/s", out)
    assert found is not None, out
    return batch / float(found[1])


def product_rate(rows: int, make: Callable[[], Callable[[torch.Tensor], torch.Tensor]]) -> float:
    """The best of many products: operations a second over matrices that do not fit a cache together."""
    products = [make() for _ in range(8)]
    x = torch.randn(rows, DEEP, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        for product in products:
            product(x)
        best = min(best, time.perf_counter() - start)
    return len(products) * 2 * rows * WIDE * DEEP / best


def bfloat16_product() -> Callable[[torch.Tensor], torch.Tensor]:
    weight = torch.randn(WIDE, DEEP).bfloat16()
    return lambda x: F.linear(x, weight)


def int4_product() -> Callable[[torch.Tensor], torch.Tensor]:
    return _packed_product(INT4)


def int8_product() -> Callable[[torch.Tensor], torch.Tensor]:
    return _packed_product(INT8)


def _packed_product(packing: Packing) -> Callable[[torch.Tensor], torch.Tensor]:
    blocks = torch.zeros(block_shape(packing, WIDE, DEEP), dtype=torch.uint8).random_(0, 256)
    blocks[..., -64:] = torch.ones(32, dtype=torch.bfloat16).view(torch.uint8)
    matrix = PackedMatrix(packing, (WIDE, DEEP), {"blocks": blocks})
    return lambda x: packed_linear(matrix, x)


if __name__ == "__main__":
    main()
