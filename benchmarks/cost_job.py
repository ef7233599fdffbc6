"""What `windlass cost job` says of a job, beside what the job then takes: time, bytes read, and energy where told.

Run: python -m benchmarks cost_job MODEL_FOLDER [--rows 32] [--prompt-words 24] [--gen-len 8] [--host-memory SIZE]

The profile of the machine is what `windlass doctor` keeps. The time is to be within 20 %, the bytes within 2 %; it says
which of them held and ends with 1 where one did not. Energy is what RAPL and NVML counted, idle power included.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, run
from windlass.economics.power import energy_counters, joules_between

TIME_WITHIN, BYTES_WITHIN = 0.20, 0.02
WORDS = ("river", "winter", "letter", "garden", "silver", "window", "people", "morning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--prompt-words", type=int, default=24)
    parser.add_argument("--gen-len", type=int, default=8)
    parser.add_argument("--host-memory", default=None)
    options = parser.parse_args()
    print(machine(), flush=True)
    budget = ["--host-memory", options.host_memory] if options.host_memory else []
    with tempfile.TemporaryDirectory() as place:
        rows, answers = Path(place) / "rows.jsonl", Path(place) / "answers.jsonl"
        rows.write_text(_rows(options.rows, options.prompt_words, options.gen_len))
        cost = _said("cost", "job", str(options.folder), "-i", str(rows), *budget)
        before = energy_counters()
        report = _said("batch", str(options.folder), "-i", str(rows), "-o", str(answers), *budget)["report"]
        joules = joules_between(before, energy_counters())
    told = {name: part["value"] for name, part in cost["sheets"][0]["quantities"].items()}
    taken = report["load_seconds"] + report["prefill_seconds"] + report["decode_seconds"]
    held = [
        _beside("seconds", told["job_seconds"], taken, TIME_WITHIN),
        _beside("bytes read", told["bytes_read"], float(report["bytes_read"]), BYTES_WITHIN),
    ]
    measured = "neither RAPL nor NVML can be read here" if joules is None else f"{joules / 3.6e6:.6f} kWh measured"
    print(f"| kWh | {told['energy']:.6f} | {measured} |")
    sys.exit(0 if all(held) else 1)


def _rows(count: int, words: int, gen_len: int) -> str:
    draw = random.Random(0)
    # No end of text before the length: the forecast counts whole answers.
    made = ({"prompt": " ".join(draw.choices(WORDS, k=words)), "max_tokens": gen_len} for _ in range(count))
    return "".join(json.dumps(row | {"ignore_eos": True}) + "\n" for row in made)


def _said(*arguments: str) -> dict[str, Any]:
    return dict(json.loads(run([sys.executable, "-m", "windlass", *arguments, "--json"]).splitlines()[-1]))


def _beside(what: str, told: float, measured: float, within: float) -> bool:
    ratio = measured / told if told else float("inf") if measured else 1.0
    held = abs(ratio - 1) <= within
    verdict = "within" if held else "NOT within"
    print(
        f"| {what} | {told:,.2f} told | {measured:,.2f} measured | {ratio:.3f} | {verdict} {within:.0%} |", flush=True
    )
    return held


if __name__ == "__main__":
    main()
