"""Many clients for minutes, a tenth of whom drop their connection: nothing leaks, and every whole answer is right.

Run: python -m benchmarks soak MODEL_FOLDER [--clients 200] [--seconds 120]

It ends with 1 where a question is still open afterwards, a page is held, memory grew, or an answer is wrong.
"""

import argparse
import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.clients import resident_bytes, serving, streamed
from benchmarks.harness import machine
from windlass import LLM, SamplingParams
from windlass.units import MIB, format_size

PROMPTS = ("ROMEO:\n", "JULIET:\n", "Once upon a time", "O", "Nurse:\nMy lady", "First Citizen:\n", "a", "The")
LENGTHS = (1, 5, 17, 40)
DROPPED = 0.1
MAY_GROW = 64 * MIB


@dataclass(slots=True)
class Tally:
    """Questions by how they ended; `wrong` are whole answers that are not those of generate."""

    whole: int = 0
    dropped: int = 0
    refused: int = 0
    wrong: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    print(machine(), flush=True)
    expected = right_answers(options.model)
    with serving(options.model, "--dtype", "float32", "--max-num-seqs", "32") as (url, process):
        asyncio.run(soak(url, expected, options.clients, min(20.0, options.seconds / 4)))  # what grows once
        before = resident_bytes(process)
        tally = asyncio.run(soak(url, expected, options.clients, options.seconds))
        left = settled(url)
        after = resident_bytes(process)
    print(
        f"{tally.whole} whole answers, {tally.wrong} of them wrong; {tally.dropped} dropped, {tally.refused} sent back"
    )
    print(f"left: {left}; memory {format_size(before)} before, {format_size(after)} after")
    if tally.wrong or not tally.whole or any(left.values()) or after - before > MAY_GROW:
        raise SystemExit("NOT held")
    print("held")


def right_answers(model: Path) -> dict[tuple[str, int], str]:
    """Text by prompt and length, greedily, in float32."""
    with LLM(model, dtype="float32") as llm:
        found = {}
        for length in LENGTHS:
            outputs = llm.generate(list(PROMPTS), SamplingParams(max_tokens=length, temperature=0.0))
            found |= {(prompt, length): output.outputs[0].text for prompt, output in zip(PROMPTS, outputs, strict=True)}
        return found


async def soak(url: str, expected: dict[tuple[str, int], str], clients: int, seconds: float) -> Tally:
    """Every client asks again as soon as it has its answer, or has gone away."""
    tally, until = Tally(), time.monotonic() + seconds
    async with httpx2.AsyncClient(base_url=url, timeout=None, limits=httpx2.Limits(max_connections=clients)) as http:
        await asyncio.gather(*(_client(http, random.Random(n), expected, until, tally) for n in range(clients)))
    return tally


async def _client(
    http: httpx2.AsyncClient, draw: random.Random, expected: dict[tuple[str, int], str], until: float, tally: Tally
) -> None:
    while time.monotonic() < until:
        prompt, length = draw.choice(PROMPTS), draw.choice(LENGTHS)
        leaves = draw.randrange(1, 4) if draw.random() < DROPPED and length > 4 else None
        try:
            heard = await streamed(http, {"prompt": prompt, "max_tokens": length, "temperature": 0}, leaves)
        except httpx2.HTTPStatusError as error:
            if error.response.status_code != 429:
                raise
            tally.refused += 1
            await asyncio.sleep(0.1)
            continue
        tally.dropped += not heard.done
        tally.whole += heard.done
        tally.wrong += heard.done and heard.text != expected[prompt, length]


def settled(url: str) -> dict[str, int]:
    """What is still held when nobody asks any more; it is given a few seconds."""
    queue: dict[str, int] = {}
    for _ in range(100):
        queue = httpx2.get(f"{url}/windlass/state", timeout=None).json()["queue"]
        left = {name: queue[name] for name in ("running", "waiting", "pages_used")}
        if not any(left.values()):
            return left
        time.sleep(0.1)
    return {name: queue[name] for name in ("running", "waiting", "pages_used")}


if __name__ == "__main__":
    main()
