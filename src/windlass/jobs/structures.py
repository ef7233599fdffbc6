"""What transformers says of a model, asked once in a process of its own and kept: importing it takes seconds.

An answer is kept by the hash of all it depends on: the config, the names of the tensors, the version of transformers.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from windlass import errors
from windlass.errors import WindlassError
from windlass.facts.model_structure import ModelStructure
from windlass.facts.shape import Shape
from windlass.facts.shape_structures import shipped_structure
from windlass.facts.tensor_name import samples
from windlass.jobs.child import output_of
from windlass.jobs.kept_answer import keep_answer, kept_answer
from windlass.settings import cache_folder

# Looking for garbage while transformers is imported is a fifth of the time that takes.
PROGRAM = "import gc; gc.disable(); from windlass.jobs.structure_command import main; main()"
# Goes up when the form of an answer changes.
FORM = 1


def structure_of_folder(folder: Path, names: Iterable[str]) -> ModelStructure:
    """That of the model whose config.json is in `folder` and whose checkpoint's tensors have `names`.

    Raises CheckpointError for a config that makes no sense, UnsupportedModel for a type that transformers lacks.
    """
    config = (folder / "config.json").read_bytes()
    question = {"folder": str(folder), "samples": samples(names)}
    return _known_or_asked(question, [hashlib.sha256(config).hexdigest(), question["samples"]])


def structure_of_values(values: Mapping[str, Any], names: Iterable[str]) -> ModelStructure:
    """As `structure_of_folder`, of a config that is not in a folder; `values` have its `model_type`."""
    given = {name: value for name, value in values.items() if name != "model_type"}
    question = {"model_type": values["model_type"], "values": given, "samples": samples(names)}
    return _known_or_asked(question, question)


def structure_of_shape(shape: Shape) -> ModelStructure:
    """That of a known shape: shipped for one version of transformers, asked for others. Raises UnsupportedModel."""
    shipped = shipped_structure(shape.name, version("transformers"))
    if shipped is not None:
        return shipped
    question = {"model_type": shape.model_type, "values": dict(shape.config), "samples": None}
    return _known_or_asked(question, question)


def _known_or_asked(question: Mapping[str, Any], decisive: Any) -> ModelStructure:
    """The answer kept for what is `decisive` about a question, else a new one."""
    written = json.dumps([FORM, version("transformers"), decisive], sort_keys=True)
    file = cache_folder() / "configs" / f"{hashlib.sha256(written.encode()).hexdigest()[:32]}.json"
    known = _read(kept_answer(file))
    if known is not None:
        return known
    answer = json.loads(output_of([sys.executable, "-c", PROGRAM], json.dumps(question)))
    if "error" in answer:
        kind, message = answer["error"]
        raise _error_named(kind)(message)
    keep_answer(file, answer["structure"])
    return ModelStructure.from_json(answer["structure"])


def _read(known: Any) -> ModelStructure | None:
    try:
        return ModelStructure.from_json(known)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, or broken: it will be asked for again


def _error_named(kind: str) -> type[WindlassError]:
    found = vars(errors).get(kind, WindlassError)
    return found if isinstance(found, type) and issubclass(found, WindlassError) else WindlassError
