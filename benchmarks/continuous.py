"""Continuous blocks beside fixed ones on rows of mixed lengths, and shared beginnings beside reading them every time.

Run: python -m benchmarks continuous MODEL_FOLDER [--only streamed resident shared] [--rows 128] [--rounds 1]

MODEL_FOLDER gets a 0.7-billion-parameter Llama shape of random weights (1.4 GB in bfloat16) if nothing is there. Mixed
rows have lognormal lengths, 16 to 512 tokens in and 4 to 256 out. A fixed block takes the next 32 rows when the longest
of the last 32 has ended; both ways have the same memory, plan and rows. What they share is eight worked examples of
GSM8K (the first 8 rows of its training part, cut to 1,000 tokens) before questions of its test part, 64 tokens out.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import GPT2TokenizerFast, LlamaConfig

from benchmarks.harness import SHARED, best_disk_rate, machine, median, run
from windlass.engine.llm import LLM
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.demo_checkpoint import write_checkpoint

BLOCK = 32
SHARED_TOKENS, SHARED_OUT = 1000, 64
MEMORY = {"streamed": "1250MiB", "resident": "6GiB", "shared": "6GiB"}
AIMS = {"streamed": 2.0, "resident": 1.4, "shared": 5.0}
WAYS = {"streamed": ("fixed", "continuous"), "resident": ("fixed", "continuous"), "shared": ("apart", "shared")}
VOCABULARY = 50257

Row = tuple[list[int], int]


def llama(folder: Path) -> Path:
    """Written to `folder` if it is not there."""
    if not (folder / "config.json").is_file():
        config = LlamaConfig(
            hidden_size=1536, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=12,
            num_key_value_heads=4, vocab_size=VOCABULARY, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
            tie_word_embeddings=False, dtype="bfloat16", architectures=["LlamaForCausalLM"],
        )  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(folder, config)
    return folder


def mixed_rows(count: int) -> list[Row]:
    """Tokens of the prompt and length of the answer, with the medians 64 and 40."""
    draw = np.random.default_rng(0)
    into = np.clip(draw.lognormal(np.log(64), 1.0, count), 16, 512).astype(int)
    out = np.clip(draw.lognormal(np.log(40), 1.0, count), 4, 256).astype(int)
    return [(draw.integers(0, VOCABULARY, i).tolist(), int(o)) for i, o in zip(into, out, strict=True)]


def worked_examples(count: int) -> list[Row]:
    """Questions behind the same eight examples."""
    folder = SHARED / "data"
    tokenizer = GPT2TokenizerFast(
        str(folder / "gpt2-tokenizer" / "vocab.json"), str(folder / "gpt2-tokenizer" / "merges.txt")
    )
    train, test = (
        [json.loads(line) for line in (folder / "gsm8k" / f"{part}.jsonl").read_text().splitlines()]
        for part in ("train", "test")
    )
    shots = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in train[:8])
    before = tokenizer.encode(shots)[:SHARED_TOKENS]
    return [(before + tokenizer.encode(f"Question: {row['question']}\nAnswer:"), SHARED_OUT) for row in test[:count]]


def measure(model: Path, case: str, way: str, count: int) -> dict[str, float]:
    """One way of one case, in this process."""
    rows = worked_examples(count) if case == "shared" else mixed_rows(count)
    lens = tuple(len(ids) + out - 1 for ids, out in rows)
    most = Workload(count, max(len(ids) for ids, _ in rows), max(out for _, out in rows), reserved_lens=lens)
    with LLM(model, host_memory=MEMORY[case], block_size=BLOCK, enable_prefix_caching=way != "apart") as llm:
        plan = llm.prepare(most)
        begin = time.perf_counter()
        answered = sum(len(ids) for ids in (_fixed if way == "fixed" else _continuous)(llm, rows, most))
        seconds = time.perf_counter() - begin
        report = llm.report
    return {
        "seconds": seconds, "tokens": answered, "rate": answered / seconds, "block": plan.block_size,
        "passes": report.prefill_passes + report.decode_passes, "read": report.prefill_tokens,
        "bytes_read": report.bytes_read,
    }  # fmt: skip


def params(out: int) -> SamplingParams:
    return SamplingParams(max_tokens=out, temperature=0.0, ignore_eos=True)


def _fixed(llm: LLM, rows: list[Row], most: Workload) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        prompts = [{"prompt_token_ids": ids} for ids, _ in block]
        for output in llm.generate(prompts, [params(out) for _, out in block]):
            yield output.outputs[0].token_ids


def _continuous(llm: LLM, rows: list[Row], most: Workload) -> Iterator[tuple[int, ...]]:
    requests = (Request(str(i), None, tuple(ids), params(out)) for i, (ids, out) in enumerate(rows))
    for output in llm.answer(requests, most):
        yield output.outputs[0].token_ids


def apart(model: Path, case: str, way: str, count: int) -> dict[str, float]:
    """One way of one case, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "continuous", str(model), "--only", case, "--way", way]
    return dict(json.loads(run([*command, "--rows", str(count)]).splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--way", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = llama(options.model)
    if options.way is not None:
        case = options.only[0]
        print(json.dumps(measure(model, case, options.way, options.rows)))
        return
    print(machine())
    for case in options.only:
        count = options.rows or (64 if case == "shared" else 128)
        ratios = []
        for number in range(1, options.rounds + 1):
            slow, fast = (apart(model, case, way, count) for way in WAYS[case])
            ratios.append(fast["rate"] / slow["rate"])
            for way, done in zip(WAYS[case], (slow, fast), strict=True):
                print(
                    f"{case} round {number}: {way:10} {done['seconds']:7.1f} s, {done['rate']:7.2f} tok/s, "
                    f"{done['passes']:.0f} passes, {done['read']:.0f} prompt tokens read",
                    flush=True,
                )
            if case == "streamed":
                limit = fast["bytes_read"] / best_disk_rate(model)
                print(f"streamed round {number}: the disk alone would take {limit:.1f} s for the bytes of continuous")
        print(f"{case}: {median(ratios):.2f} times (aim {AIMS[case]})", flush=True)


if __name__ == "__main__":
    main()
