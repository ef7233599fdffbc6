"""Shows on any machine, without a network, what Windlass is for: a model larger than its budget, and the right tokens.

Every run is a process of its own, since a budget is a limit on a whole process.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.facts.demo_result import DemoResult, TokenComparison
from windlass.jobs.demo_checkpoint import big_config, twin_config, write_checkpoint
from windlass.jobs.reference import greedy_tokens
from windlass.units import MIB, format_bytes, format_rate, format_seconds, format_size

BIG_BUDGET = "1.2GB"
TWIN_PROMPT_LENS, TWIN_GEN_LEN = (3, 5, 8, 13, 21, 34), 24

_BIG_WORK = ("--num-prompts", "8", "--prompt-len", "16", "--gen-len", "12")
# What the twin's process may hold beside the libraries, activations included: less than the twin's weights.
_TWIN_ROOM = 96 * MIB

Say = Callable[[str], None]
Windlass = Callable[[Sequence[str]], str]


def demonstrate(windlass: Windlass, folder: Path, say: Say) -> DemoResult:
    """Runs all of it below `folder`. `windlass` runs a verb in a process of its own and returns what it wrote.

    Raises StorageError where there is no room, WindlassError where a run fails.
    """
    say("1. A Llama-shaped checkpoint of random weights, larger than the budget that is coming")
    checkpoint = folder / "big"
    checkpoint_bytes = write_checkpoint(checkpoint, big_config())
    say(f"   {format_bytes(checkpoint_bytes)} written to {checkpoint}")
    say(f"2. The same checkpoint run by a process that may hold {BIG_BUDGET}, libraries included")
    measured = _bench(windlass, checkpoint, say)
    say("3. A float32 twin, streamed under a budget it does not fit, and by transformers with all it wants")
    base = int(measured["plan"]["memory"]["base"])
    comparisons = _compare(windlass, folder, base + _TWIN_ROOM, say)
    return DemoResult(checkpoint_bytes, measured, tuple(comparisons))


def _bench(windlass: Windlass, checkpoint: Path, say: Say) -> Mapping[str, Any]:
    work = ("bench", str(checkpoint), *_BIG_WORK, "--host-memory", BIG_BUDGET)
    say(f"   $ windlass {' '.join(work)}")
    measured: dict[str, Any] = json.loads(windlass([*work, "--json"]))
    for line in _bench_lines(measured):
        say(f"   {line}")
    return measured


def _bench_lines(measured: Mapping[str, Any]) -> list[str]:
    """A pass beside what the disk alone would take for it."""
    lines = [
        f"memory   {format_size(measured['peak_memory'])} at most, budget {format_size(measured['memory_budget'])}",
        f"decode   {measured['decode_rate']:.2f} tok/s over {measured['num_prompts']} sequences",
    ]
    a_pass, streamed = measured["seconds_per_pass"], measured["plan"]["streamed_bytes"]
    line = f"a pass   {format_seconds(a_pass)} for {format_bytes(streamed)} from the disk"
    if measured["disk_limit"]:
        limit = streamed / measured["disk_limit"]
        line += (
            f", which at its measured {format_rate(measured['disk_limit'])} takes {format_seconds(limit)}: "
            f"{a_pass / limit:.2f} times"
        )
    return [*lines, line, f"bound by {measured['bound_by']}"]


def _compare(windlass: Windlass, folder: Path, budget: int, say: Say) -> list[TokenComparison]:
    twin = folder / "twin"
    nbytes = write_checkpoint(twin, twin_config())
    draw = random.Random(0)
    prompts = [draw.choices(range(3, 259), k=length) for length in TWIN_PROMPT_LENS]
    ours, read = _windlass_tokens(windlass, folder, twin, prompts, budget)
    say(f"   {format_bytes(nbytes)} of weights; {format_bytes(read)} read from disk under {format_size(budget)}")
    theirs = greedy_tokens(twin, prompts, TWIN_GEN_LEN)
    comparisons = [TokenComparison(len(p), a, b) for p, a, b in zip(prompts, ours, theirs, strict=True)]
    for each in comparisons:
        say(f"   {each.line()}")
        say(f"     windlass     {_shown(each.ours)}")
        say(f"     transformers {_shown(each.theirs)}")
    return comparisons


def _windlass_tokens(
    windlass: Windlass, folder: Path, twin: Path, prompts: Sequence[Sequence[int]], budget: int
) -> tuple[list[tuple[int, ...]], int]:
    """The tokens of each prompt, and the bytes that were read for them."""
    questions, answers = folder / "questions.jsonl", folder / "answers.jsonl"
    wanted = {"max_tokens": TWIN_GEN_LEN, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    questions.write_text("".join(json.dumps({"prompt": list(prompt)} | wanted) + "\n" for prompt in prompts))
    files = ("-i", str(questions), "-o", str(answers))
    summary = json.loads(windlass(["batch", str(twin), *files, "--host-memory", str(budget), "--json"]))
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    tokens = [tuple(row["response"]["body"]["choices"][0]["token_ids"]) for row in rows]
    return tokens, int(summary["report"]["bytes_read"])


def _shown(tokens: Sequence[int]) -> str:
    """The first few: enough to see that they are the same."""
    return " ".join(map(str, tokens[:12])) + (" ..." if len(tokens) > 12 else "")
