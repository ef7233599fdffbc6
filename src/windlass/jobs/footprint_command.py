"""Opens one model as a run would, rehearses a micro-batch, and prints what that took as JSON (see footprints.py).

Standard input is one JSON object: `model`, `dtype`, `kv_cache_dtype` and `width`. Standard output is `{"footprint":
...}`, or `{"error": message}` for an error of the error tree.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from transformers.utils import logging

from windlass.engine.budgets import demands
from windlass.engine.llm import LLM
from windlass.errors import WindlassError
from windlass.facts.footprint import Footprint
from windlass.facts.workload import Workload


def measure(question: Mapping[str, Any]) -> Footprint:
    """Takes the memory of opening the model, and no more: its weights are not read. Raises WindlassError."""
    width = int(question["width"])
    formats = {"dtype": question["dtype"], "kv_cache_dtype": question["kv_cache_dtype"]}
    with LLM(question["model"], device="cpu", **formats) as llm:
        taken = demands(llm.opened, Workload(1, width, 1), None, None, width, 1, None)
    return Footprint(taken.base, taken.activations, width, taken.rows_held)


def main() -> None:
    """Reads the question, prints the answer."""
    logging.set_verbosity_error()
    try:
        answer: dict[str, Any] = {"footprint": measure(json.load(sys.stdin)).as_json()}
    except WindlassError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)
