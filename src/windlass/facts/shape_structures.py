"""The structures of the known shapes, so that a plan for one asks nobody (dev/make_shape_structures.py makes them).

They stand in shape_structures.json, by name, with the version of transformers that gave them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from windlass.facts.model_structure import ModelStructure

FILE = Path(__file__).with_name("shape_structures.json")


def shipped_structure(name: str, transformers: str) -> ModelStructure | None:
    """The structure of the shape `name` by that version of transformers, None where that is not shipped."""
    shipped = _shipped()
    if shipped.get("transformers") != transformers or name not in shipped["structures"]:
        return None
    return ModelStructure.from_json(shipped["structures"][name])


@cache
def _shipped() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.is_file() else {}
