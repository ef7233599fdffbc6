"""What serving costs beside the engine alone, and how long people wait.

Run: python -m benchmarks serving MODEL_FOLDER [--rounds 3] [--gen-len 64] [--prompt-len 32] [--host-memory SIZE]

First throughput at 32 clients against `windlass bench` with the same block, round by round in turn (aim: 0.9 of it).
Then time to the first token and between tokens for 1, 8 and 32 clients, with and without a batch that runs beside.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

import httpx2

from benchmarks.clients import Heard, percentiles, serving, streamed
from benchmarks.harness import machine, median, windlass_bench

CLIENTS = (1, 8, 32)
BLOCK = 32
AIM = 0.9
QUESTIONS = 4
"""That each client asks one after the other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-len", type=int, default=32)
    parser.add_argument("--gen-len", type=int, default=64)
    parser.add_argument("--host-memory", default=None)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    options = parser.parse_args()
    print(machine(), flush=True)
    budget = ["--host-memory", options.host_memory] if options.host_memory else []
    _throughput(options.model, options.rounds, options.prompt_len, options.gen_len, budget)
    with tempfile.TemporaryDirectory() as jobs:
        flags = ["--max-num-seqs", str(BLOCK), "--jobs", jobs, *budget]
        with serving(options.model, *flags) as (url, _):
            for beside in (False, True):
                _waits(url, options.clients, options.prompt_len, options.gen_len, beside)


def _throughput(model: Path, rounds: int, prompt_len: int, gen_len: int, budget: list[str]) -> None:
    """Tokens of answers a second: the engine alone, and the same work through the server."""
    ratios = []
    for number in range(1, rounds + 1):
        told = windlass_bench(
            model, "--prompt-len", str(prompt_len), "--gen-len", str(gen_len), "--num-prompts", str(BLOCK),
            "--block-size", str(BLOCK), "--rounds", "1", *budget,
        )  # fmt: skip
        alone = _bench_rate(told, gen_len)
        with serving(model, "--max-num-seqs", str(BLOCK), "--block-size", str(BLOCK), *budget) as (url, _):
            asyncio.run(_asked(url, BLOCK, 1, prompt_len, 2))  # what is worked out once
            begin = time.perf_counter()
            asyncio.run(_asked(url, BLOCK, 1, prompt_len, gen_len))
            served = BLOCK * gen_len / (time.perf_counter() - begin)
        ratios.append(served / alone)
        print(
            f"| round {number} | bench {alone:.1f} tok/s | server {served:.1f} tok/s | {served / alone:.2f} |",
            flush=True,
        )
    verdict = "held" if median(ratios) >= AIM else "NOT held"
    print(f"throughput at {BLOCK} clients: {median(ratios):.2f} of bench (aim {AIM}, {verdict})", flush=True)


def _bench_rate(told: dict[str, object], gen_len: int) -> float:
    """Prefill and decode together, as a client sees them."""
    rounds = told["rounds"]
    assert isinstance(rounds, list)
    seconds = sum(each["prefill_seconds"] + each["decode_seconds"] for each in rounds) / len(rounds)
    return BLOCK * gen_len / float(seconds)


def _waits(url: str, counts: list[int], prompt_len: int, gen_len: int, beside: bool) -> None:
    batch = _begin_batch(url, prompt_len, gen_len) if beside else None
    for count in counts:
        heard = asyncio.run(_asked(url, count, QUESTIONS, prompt_len, gen_len))
        first = percentiles([each.first for each in heard])
        between = percentiles([seconds for each in heard for seconds in each.between])
        print(
            f"| {count} clients{', a batch beside' if beside else ''} | first token p50 {first[0]:.3f} s, p99 "
            f"{first[1]:.3f} s | between tokens p50 {between[0]:.4f} s, p99 {between[1]:.4f} s |",
            flush=True,
        )
    if batch is not None:
        told = httpx2.post(f"{url}/v1/batches/{batch}/cancel", json={}, timeout=None).json()
        counts_of = told["request_counts"]
        print(f"the batch answered {counts_of['completed']} of {counts_of['total']} rows meanwhile", flush=True)


async def _asked(url: str, count: int, questions: int, prompt_len: int, gen_len: int) -> list[Heard]:
    """`count` clients side by side, each with a new question when it has its answer."""
    async with httpx2.AsyncClient(base_url=url, timeout=None, limits=httpx2.Limits(max_connections=count)) as http:

        async def one(number: int) -> list[Heard]:
            draw = random.Random(number)
            return [await streamed(http, _body(draw, prompt_len, gen_len)) for _ in range(questions)]

        return [heard for each in await asyncio.gather(*map(one, range(count))) for heard in each]


def _body(draw: random.Random, prompt_len: int, gen_len: int) -> dict[str, object]:
    """Token ids of every tokenizer, and an answer of just that length."""
    ids = [draw.randrange(3, 256) for _ in range(prompt_len)]
    return {"prompt": ids, "max_tokens": gen_len, "ignore_eos": True, "temperature": 0}


def _begin_batch(url: str, prompt_len: int, gen_len: int) -> str:
    draw = random.Random(-1)
    rows = [
        {"custom_id": str(place), "method": "POST", "url": "/v1/completions", "body": _body(draw, prompt_len, gen_len)}
        for place in range(20000)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with httpx2.Client(base_url=url, timeout=None) as http:
        sent = http.post("/v1/files", files={"file": ("rows.jsonl", content)}, data={"purpose": "batch"}).json()
        body = {"input_file_id": sent["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        batch: str = http.post("/v1/batches", json=body).json()["id"]
        while not http.get("/windlass/state").json()["queue"]["running"]:
            time.sleep(0.1)
    return batch


if __name__ == "__main__":
    main()
