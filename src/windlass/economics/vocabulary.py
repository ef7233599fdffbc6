"""Every name of `windlass cost` with its unit, so that a person's file is held against it.

One file may serve several questions, so a name that only another question uses is in order; one that none uses is not.
"""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from windlass.economics import adapter, job, loss_law, money, search, serving, training
from windlass.economics.assumption import Assumption
from windlass.economics.assumption_sets import content, own_file
from windlass.economics.formula import Formula
from windlass.errors import UsageError

FILES = ("apis", "january_2023", "loss_law", "machines", "models", "today")
FORMULAS: tuple[Formula, ...] = (
    *search.JANUARY_2023, *search.BY_API, *search.OWNED, *search.RENTED, *money.OWNED_HOUR, *money.TOKEN_PRICES,
    *job.job_formulas(rented=True, api=True), *serving.FLEET, *serving.API, *training.WITH_LOSS, *training.SERVED,
    *loss_law.LOSS, *adapter.TUNE, *adapter.RENT,
)  # fmt: skip


@cache
def units() -> Mapping[str, str]:
    """The unit of every name; empty for what a forecast gives."""
    needed = {name: "" for formula in FORMULAS for name in formula.inputs}
    assumed = {name: unit for file in FILES for name, unit in _stated(content(file))}
    return needed | assumed | {formula.name: formula.unit for formula in FORMULAS}


def own_assumptions(path: Path | None) -> dict[str, Assumption]:
    """A person's own file. Raises UsageError for a name that no question uses, and for another unit than its own."""
    found, known = own_file(path), units()
    for name, each in found.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}?" if near else "--explain shows every name"
            raise UsageError(f"{path}: no question uses the name {name!r:.60}; {meant}")
        if known[name] and each.unit != known[name]:
            raise UsageError(f"{path}: {name} is in {each.unit!r:.40}, and is counted in {known[name]}; convert it")
    return found


def _stated(part: Any) -> Iterator[tuple[str, str]]:
    if isinstance(part, dict) and "unit" in part:
        yield part["name"], part["unit"]
    elif isinstance(part, dict | list):
        for child in part.values() if isinstance(part, dict) else part:
            yield from _stated(child)
