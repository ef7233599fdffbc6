"""What a run of a model on this machine holds beside the model, measured once in a process of its own and kept.

A plan under a tight budget stands or falls with it: of 1,500 MiB the process alone takes a third.
"""

import hashlib
import json
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from windlass.facts.footprint import Footprint
from windlass.jobs.child import output_of
from windlass.jobs.kept_answer import keep_answer, kept_answer
from windlass.settings import cache_folder, num_threads

PROGRAM = "import gc; gc.disable(); from windlass.jobs.footprint_command import main; main()"


def footprint_of(model: Path, dtype: str, kv_cache_dtype: str, width: int) -> Footprint | None:
    """That of the model in a folder or a GGUF file, for micro-batches of `width` tokens; None where it will not open.

    Takes some seconds the first time.
    """
    question = {"model": str(model), "dtype": dtype, "kv_cache_dtype": kv_cache_dtype, "width": width}
    kept = _place(model, question)
    with suppress(ValueError, KeyError, TypeError):
        return Footprint.from_json(kept_answer(kept))
    answer = json.loads(output_of([sys.executable, "-c", PROGRAM], json.dumps(question)))
    if "footprint" not in answer:
        return None
    keep_answer(kept, answer["footprint"])
    return Footprint.from_json(answer["footprint"])


def _place(model: Path, question: dict[str, object]) -> Path:
    """By all that it depends on: what the model is, what runs it, and how many threads have stacks and buffers."""
    config = model if model.is_file() else model / "config.json"
    stamp = config.stat()
    libraries = [version(name) for name in ("windlass", "torch", "transformers", "tokenizers")]
    decisive = [question, stamp.st_size, stamp.st_mtime_ns, libraries, num_threads()]
    name = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "footprints" / f"{name}.json"
