"""The data files read: sets of assumptions by name, the person's own file, and what `--set` says."""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from windlass.economics.assumption import Assumption, check_value, exact, read_assumption
from windlass.errors import UsageError

_FOLDER = Path(__file__).with_name("data")
Pool = Mapping[str, Assumption]


@cache
def content(name: str) -> Any:
    """A data file of the package."""
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def packaged(file: str, section: str) -> dict[str, Assumption]:
    """One section of a data file, by name."""
    return by_name(content(file)[section], f"{file}.json")


def by_name(entries: Iterable[Any], where: str) -> dict[str, Assumption]:
    """Assumptions by name."""
    return {each.name: each for each in (read_assumption(entry, where) for entry in entries)}


def entry_named(file: str, name: str, what: str) -> Mapping[str, Any]:
    """The entry of a list of named ones, such as models.json. Raises UsageError with the nearest."""
    entries = {entry["name"]: entry for entry in content(file)}
    found = entries.get(name)
    if found is None:
        near = difflib.get_close_matches(name, entries, n=1)
        meant = f"did you mean {near[0]}? There are" if near else "use one of"
        raise UsageError(f"{what} {name!r:.60} is not in {file}.json; {meant} {', '.join(entries)}")
    return dict(found)


def own_file(path: Path | None) -> dict[str, Assumption]:
    """A person's own assumptions: a JSON list of objects as in the package's files. Raises UsageError."""
    if path is None:
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--assumptions {path} cannot be read: {error.strerror}; name another file") from error
    except ValueError as error:
        raise UsageError(f"--assumptions {path} is no JSON: {error}; write a list of objects") from error
    if not isinstance(entries, list):
        raise UsageError(f'--assumptions {path} holds no list; write [{{"name": ..., "value": ..., ...}}, ...]')
    found = by_name(entries, str(path))
    if len(found) < len(entries):
        twice = next(name for name, count in Counter(str(entry["name"]) for entry in entries).items() if count > 1)
        raise UsageError(f"{path}: {twice} stands there more than once; keep one of them")
    return found


def settings_of(texts: Sequence[str]) -> dict[str, float]:
    """`name=value` -> numbers by name. Raises UsageError."""
    found = {}
    for text in texts:
        name, sign, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not sign or not name.strip() or not abs(value) < float("inf"):
            raise UsageError(f"--set {text!r:.60} is no name=value with a finite number; write it as electricity=0.30")
        found[name.strip()] = value
    return found


def asked(name: str, value: float, unit: str, source: str = "asked for") -> Assumption:
    """A number that the question itself gives. Raises UsageError for one that cannot be."""
    check_value(name, value, unit)
    return exact(name, value, unit, source, "now")
