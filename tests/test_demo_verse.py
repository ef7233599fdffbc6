"""The demonstration's first part: verse from a model on a device too small for it, token for token the model's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from windlass.jobs.demo_verse import BUDGET, COMPARED, OPENINGS, SPEAKERS, verse, verse_lines

SOURCE = Path(__file__).resolve().parent.parent / "src"


# In a process of its own, as the demonstration is: what a micro-batch takes is measured, and one that has run much else
# may take a page or two more.
PROGRAM = """
import json
from windlass.facts.workload import Workload
from windlass.jobs.demo_verse import BUDGET, OPENINGS, SPEAKERS, TOKENS, open_on_the_device
with open_on_the_device(BUDGET) as llm:
    plan, facts = llm.plan_for(Workload(len(SPEAKERS) * len(OPENINGS), 16, TOKENS)), llm.opened.facts
print(json.dumps({
    "weights": facts.weight_bytes, "cache": plan.num_pages * plan.page_tokens * facts.cache_bytes_per_token,
    "streamed": plan.streamed_bytes, "host_pages": plan.host_pages, "block": plan.block_size,
}))
"""


def test_the_device_is_too_small_for_weights_and_keys_and_values() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    plan = json.loads(ran.stdout)
    assert plan["weights"] + plan["cache"] > BUDGET
    assert plan["streamed"] and plan["host_pages"]
    assert plan["block"] == len(SPEAKERS) * len(OPENINGS), "all of them at once"


def test_a_few_tokens_of_it_are_those_of_the_resident_run_and_of_transformers() -> None:
    result = verse(tokens=12)
    assert result.equal and result.streamed_bytes
    assert (len(result.ours), len(result.comparisons)) == (len(SPEAKERS) * len(OPENINGS), COMPARED)
    assert result.as_dict()["tokens"] == 12 * len(result.ours)
    lines = verse_lines(result)
    assert lines[0] == "| ROMEO:" and any("over the link, which take" in line for line in lines)
    assert f"{len(result.ours)} of {len(result.ours)} answers of 12 tokens are those of a run" in "\n".join(lines)
