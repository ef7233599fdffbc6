"""Shows on any machine, without a network, what Windlass is for: a model larger than its budget, and the right tokens.

Every run of the heavy lift is a process of its own, since a budget is a limit on a whole process.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from windlass.facts.demo_result import DemoResult, TokenComparison, VerseResult
from windlass.jobs.demo_checkpoint import big_config, twin_config, write_checkpoint
from windlass.jobs.demo_verse import verse, verse_lines
from windlass.jobs.reference import greedy_tokens
from windlass.units import MIB, format_bytes, format_rate, format_seconds, format_size

BIG_BUDGET = "1.2GB"
TWIN_PROMPT_LENS, TWIN_GEN_LEN = (3, 5, 8, 13, 21, 34), 24

_BIG_WORK = ("--num-prompts", "8", "--prompt-len", "16", "--gen-len", "12", "--device", "cpu")
# Weights on the device, on the host and on disk; keys and values half and half.
_TIERS = ("--percent", "30", "40", "50", "50", "100", "0", "--gpu-batch-size", "4", "--num-gpu-batches", "2")
_TIERS_WORK = ("--prompt-len", "16", "--gen-len", "6", *_TIERS)
SIM_RATE = 4e9
_SIM = ("--device", "sim:rate=4GB/s,latency=20us,poison=off", "--gpu-memory", "1GB")
_CUDA = ("--device", "cuda")
# What the twin's process may hold beside the libraries, activations included: less than the twin's weights.
_TWIN_ROOM = 96 * MIB

Say = Callable[[str], None]
Windlass = Callable[[Sequence[str]], str]


def demonstrate(windlass: Windlass, folder: Path, say: Say) -> DemoResult:
    """Runs all of it below `folder`. `windlass` runs a verb in a process of its own and returns what it wrote.

    Raises StorageError where there is no room, WindlassError where a run fails.
    """
    spoken = _verse(say)
    say("2. A Llama-shaped checkpoint of random weights, larger than the budget that is coming")
    checkpoint = folder / "big"
    checkpoint_bytes = write_checkpoint(checkpoint, big_config())
    say(f"   {format_bytes(checkpoint_bytes)} written to {checkpoint}")
    if torch.cuda.is_available():
        say("3. The same checkpoint over three memories: on the GPU, in host memory and on disk")
        measured = tiers = _bench(windlass, (str(checkpoint), *_TIERS_WORK, *_CUDA), say)
    else:
        say(f"3. The same checkpoint run by a process that may hold {BIG_BUDGET}, libraries included")
        measured = _bench(windlass, (str(checkpoint), *_BIG_WORK, "--host-memory", BIG_BUDGET), say)
        say("   And over three memories: on a simulated device, in host memory and on disk")
        tiers = _bench(windlass, (str(checkpoint), *_TIERS_WORK, *_SIM), say, SIM_RATE)
    say("4. A float32 twin, streamed under a budget it does not fit, and by transformers with all it wants")
    base = int((measured["plan"]["host"] or measured["plan"]["memory"])["base"])
    comparisons = _compare(windlass, folder, base + _TWIN_ROOM, say)
    return DemoResult(spoken, checkpoint_bytes, measured, tiers, tuple(comparisons))


def _verse(say: Say) -> VerseResult:
    say("1. The small model in the box speaks verse on a simulated device that cannot hold it, in float32")
    spoken = verse()
    for line in verse_lines(spoken):
        say(f"   {line}".rstrip())
    return spoken


def _bench(windlass: Windlass, work: Sequence[str], say: Say, link: float = 0.0) -> Mapping[str, Any]:
    """A benchmark in a process of its own; `link` is the rate of its link (bytes/s), where that is known."""
    say(f"   $ windlass bench {' '.join(work)}")
    measured: dict[str, Any] = json.loads(windlass(["bench", *work, "--json"]))
    for line in _bench_lines(measured, link):
        say(f"   {line}")
    return measured


def _bench_lines(measured: Mapping[str, Any], link: float) -> list[str]:
    """A pass beside what the disk alone, and the link alone, would take for it."""
    lines = [
        f"memory   {format_size(measured['peak_memory'])} at most, budget {format_size(measured['memory_budget'])}",
        f"decode   {measured['decode_rate']:.2f} tok/s over {measured['num_prompts']} sequences",
    ]
    lines += _limits(measured, "disk_bytes", "from the disk", "its measured", measured["disk_limit"])
    lines += _gap(measured, "disk", "disk_bytes", measured["disk_limit"])
    if measured["plan"]["host"]:
        lines += _limits(measured, "streamed_bytes", "over the link", "its", link)
        lines += _gap(measured, "upload", "streamed_bytes", link)
        busy = ", ".join(f"{lane} {seconds:.2f} s" for lane, seconds in measured["decode_lanes"].items())
        lines.append(f"lanes    busy in {format_seconds(measured['decode_seconds'])} of decode: {busy}")
    return [*lines, f"bound by {measured['bound_by']}"]


def _limits(measured: Mapping[str, Any], what: str, where: str, whose: str, rate: float) -> list[str]:
    """What a pass took beside what its bytes take at the link's `rate` (bytes/s; 0.0 is not known)."""
    a_pass, nbytes = measured["seconds_per_pass"], measured["plan"][what]
    if not nbytes:
        return []
    line = f"a pass   {format_seconds(a_pass)} for {format_bytes(nbytes)} {where}"
    if rate:
        limit = nbytes / rate
        line += f", which at {whose} {format_rate(rate)} takes {format_seconds(limit)}: {a_pass / limit:.2f} times"
    return [line]


def _gap(measured: Mapping[str, Any], lane: str, what: str, rate: float) -> list[str]:
    """What makes the difference between a pass and what `lane` alone would take at `rate` (bytes/s; 0.0: not known)."""
    a_pass, nbytes, passes = measured["seconds_per_pass"], measured["plan"][what], measured["decode_passes"]
    if not (nbytes and rate and passes):
        return []
    busy = {name: min(a_pass, seconds / passes) for name, seconds in measured["decode_lanes"].items()}
    slower, idle = busy[lane] - nbytes / rate, a_pass - busy[lane]
    pace = "slower" if slower >= 0 else "faster"
    where = {"disk": "the disk", "upload": "the link"}[lane]
    return [
        f"gap      {format_seconds(abs(slower))} as {where} was {pace} than that rate in these passes, "
        f"{format_seconds(idle)} as it stood still for others: compute was busy for {format_seconds(busy['compute'])} "
        "of a pass"
    ]


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
    summary = json.loads(
        windlass(["batch", str(twin), *files, "--device", "cpu", "--host-memory", str(budget), "--json"])
    )
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    tokens = [tuple(row["response"]["body"]["choices"][0]["token_ids"]) for row in rows]
    return tokens, int(summary["report"]["bytes_read"])


def _shown(tokens: Sequence[int]) -> str:
    """The first few: enough to see that they are the same."""
    return " ".join(map(str, tokens[:12])) + (" ..." if len(tokens) > 12 else "")
