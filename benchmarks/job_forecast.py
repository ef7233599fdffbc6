"""What `windlass plan -i FILE` says of a job of mixed lengths, beside what `windlass batch` takes for it by that plan.

Run: python -m benchmarks job_forecast MODEL_FOLDER [--only streamed resident shared] [--rows 96]

The model and the rows are those of `python -m benchmarks continuous`: 16 to 512 tokens in, 4 to 256 out; `shared` has
the same 1,000 tokens before questions of 64, with 64 out. The disk is measured right before each run, and the plan is
priced with it.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.continuous import MEMORY, VOCABULARY, Row, llama, mixed_rows
from benchmarks.harness import best_disk_rate, machine, run
from windlass.jobs.machine_profile import known_machine

COMMON, QUESTION, ANSWER = 1000, 64, 64


def shared_rows(count: int) -> list[Row]:
    """Questions of equal length behind the same tokens."""
    draw = random.Random(0)
    before = draw.choices(range(VOCABULARY), k=COMMON)
    return [(before + draw.choices(range(VOCABULARY), k=QUESTION), ANSWER) for _ in range(count)]


def written(rows: list[Row], file: Path) -> Path:
    """The rows as `batch` reads them; answers go on to their length."""
    asked = [{"prompt": ids, "max_tokens": out, "temperature": 0.0, "ignore_eos": True} for ids, out in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return file


def windlass(*arguments: object) -> dict[str, Any]:
    """A verb with --json, in a process of its own."""
    said = run([sys.executable, "-m", "windlass", *map(str, arguments), "--json"])
    return dict(json.loads(said.splitlines()[-1]))


def tell(model: Path, case: str, count: int, folder: Path) -> float:
    """A row of the table -> seconds measured over those forecast, loading aside."""
    rows = shared_rows(count) if case == "shared" else mixed_rows(count)
    asked, plan = written(rows, folder / "rows.jsonl"), folder / "plan.json"
    rate = f"{best_disk_rate(model) / 1e9:.3f}GB/s"
    told = windlass(
        "plan", model, "-i", asked, "--host-memory", MEMORY[case], "-o", plan, "--disk-rate", rate, "--device", "cpu"
    )
    done = windlass("batch", model, "-i", asked, "-o", folder / "out.jsonl", "--overwrite", "--plan", plan, "--quiet")
    expected, report = told["forecast"], done["report"]
    phases = [
        (expected[name]["seconds"], report[f"{name}_seconds"], expected[name]["passes"], report[f"{name}_passes"])
        for name in ("prefill", "decode")
    ]
    forecast, measured = (sum(phase[place] for phase in phases) for place in (0, 1))
    cells = [f"{a:.1f} s | {b:.1f} s | {c} | {d}" for a, b, c, d in phases]
    print(
        f"| {case} | {count} | {told['plan']['block_size']} | {' | '.join(cells)} | {forecast:.1f} s "
        f"| {measured:.1f} s | {measured / forecast:.2f} | {_promised(report):.2f} |",
        flush=True,
    )
    return measured / forecast


def _promised(report: dict[str, Any]) -> float:
    """Seconds of both phases over what the run itself says they should have taken."""
    told = report["forecast"]
    return float(
        (report["prefill_seconds"] + report["decode_seconds"])
        / (told["prefill"]["seconds"] + told["decode"]["seconds"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(MEMORY), default=list(MEMORY))
    parser.add_argument("--rows", type=int, default=96)
    options = parser.parse_args()
    model = llama(options.model)
    known = known_machine(model)
    print(f"{machine()}; profile of {known.measured}", flush=True)
    print(
        "| case | rows | block | prefill forecast | measured | passes forecast | made | decode forecast | measured "
        "| passes forecast | made | in all forecast | measured | ratio | over the run's own promise |"
    )
    print("| --- " * 15 + "|")
    with tempfile.TemporaryDirectory(prefix="windlass-job-") as folder:
        for case in options.only:
            tell(model, case, options.rows, Path(folder))


if __name__ == "__main__":
    main()
