"""A model that fits, decoding few sequences: products of its layers by our kernel and by torch's, alternating rounds.

Run: python -m benchmarks few_rows MODEL_FOLDER [--batches 1 2 4 8] [--rounds 3] [--gen-len 12]

One process, bfloat16, prompts of 32 tokens, greedy. A decode pass is the median of the passes of a round; beside it
stands what it reads of the weights, and the rate at which a sum reads memory before each round.
"""

import argparse
import random
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import llama_3b, machine, median
from benchmarks.resident import LENGTH, windlass_round
from windlass import LLM
from windlass.facts.workload import Workload
from windlass.memory.product_rates import measure_reads
from windlass.model.own_linear import OwnLinear
from windlass.units import MIB


def multiply_by(llm: LLM, kind: type[nn.Linear]) -> int:
    """Has every linear layer of the decoder be of that kind; returns the bytes of their weights and the head's."""
    lifted = llm.opened.lifted
    nbytes = lifted.head.module.weight.nbytes
    for part in lifted.layers:
        for module in part.module.modules():
            if type(module) in (nn.Linear, OwnLinear):
                module.__class__ = kind
                nbytes += module.weight.nbytes
    return nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gen-len", type=int, default=12)
    options = parser.parse_args()
    print(machine())
    draw = random.Random(0)
    with LLM(llama_3b(options.model)) as llm:
        llm.prepare(Workload(max(options.batches), LENGTH, options.gen_len))
        for batch in options.batches:
            passes: dict[type[nn.Linear], list[float]] = {OwnLinear: [], nn.Linear: []}
            memory = []
            for _ in range(options.rounds):
                prompts = [draw.choices(range(3, 259), k=LENGTH) for _ in range(batch)]
                memory.append(measure_reads(torch.device("cpu"), 256 * MIB))
                for kind, found in passes.items():
                    nbytes = multiply_by(llm, kind)
                    found.append(windlass_round(llm, prompts, options.gen_len)[1])
            report(batch, passes[OwnLinear], passes[nn.Linear], nbytes, median(memory))


def report(batch: int, ours: list[float], theirs: list[float], nbytes: int, memory: float) -> None:
    for name, found in (("our kernel", ours), ("torch", theirs)):
        rates = f"{nbytes / median(found) / 1e9:.1f} GB/s of {memory / 1e9:.1f}"
        print(f"batch {batch:2d} {name:10s} {', '.join(f'{each:.3f}' for each in found)} s a pass, {rates}")
    ratio = median([torchs / own for own, torchs in zip(ours, theirs, strict=True)])
    print(f"batch {batch:2d} torch's pass against ours: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
