"""The shapes of well-known models: what their configs say, so that they can be measured where their weights are not.

The figures stand in shapes.json, copied from each model's published config; `parameters` is the published total.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from windlass.errors import UsageError

_FILE = Path(__file__).with_name("shapes.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """`config` are the fields of transformers' config of type `model_type`; `dtype` is what the weights come in.

    `published` names the model whose shape it is, and in what it differs.
    """

    name: str
    model_type: str
    dtype: str
    parameters: int
    published: str
    config: Mapping[str, object]

    def __str__(self) -> str:
        return self.name


@cache
def shapes() -> Mapping[str, Shape]:
    """All of them by name."""
    return {entry["name"]: Shape(**entry) for entry in json.loads(_FILE.read_text(encoding="utf-8"))}


def shape_named(name: str) -> Shape:
    """The shape of that name. Raises UsageError with the nearest, or with all."""
    found = shapes().get(name.lower())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), shapes(), n=1)
    meant = f"did you mean {near[0]}? There are" if near else "use one of"
    raise UsageError(f"--shape {name!r} is not known; {meant} {', '.join(shapes())}")
