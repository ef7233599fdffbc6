"""A calculation as one value: what is assumed, what follows from it, and which of that was asked for."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windlass.economics.assumption import Assumption, check_value
from windlass.economics.formula import Formula, Value
from windlass.economics.number_text import number_text, quantity_text
from windlass.errors import UsageError


@dataclass(frozen=True, slots=True)
class Sheet:
    """`formulas` stand in order: each needs assumptions and what stands before it. `results` name what was asked for,
    the most important first."""

    title: str
    assumptions: tuple[Assumption, ...]
    formulas: tuple[Formula, ...]
    results: tuple[str, ...]

    @property
    def unit(self) -> Mapping[str, str]:
        """The unit of every quantity, by name."""
        assumed = {each.name: each.unit for each in self.assumptions}
        return assumed | {formula.name: formula.unit for formula in self.formulas}

    def values(self, changes: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """Every quantity by name, with `changes` in the place of assumptions."""
        known: dict[str, Value] = {each.name: each.value for each in self.assumptions}
        known.update(changes or {})
        for formula in self.formulas:
            known[formula.name] = formula.value(known)
        return known

    def value(self, name: str) -> float:
        """One quantity."""
        return float(self.values()[name])

    def explained(self) -> list[str]:
        """The arithmetic, line by line, and where each assumption comes from."""
        known = self.values()
        lines = [f"{self.title}: what is assumed"]
        for each in self.assumptions:
            spread = "" if each.is_exact else f", from {number_text(each.low)} to {number_text(each.high)}"
            lines.append(
                f"  {each.name} = {quantity_text(each.value, each.unit)}{spread}  [{each.date}; {each.source}]"
            )
        lines.append(f"{self.title}: the arithmetic")
        for formula in self.formulas:
            indent = " " * (len(formula.name) + 2)
            lines.append(f"  {formula.name} = {formula.expression}")
            lines.append(f"{indent} = {formula.with_numbers(known)}")
            value = quantity_text(float(known[formula.name]), formula.unit)
            lines.append(f"{indent} = {value}  ({formula.meaning})")
        return lines


def make_sheet(
    title: str, formulas: Sequence[Formula], results: Sequence[str], pool: Mapping[str, Assumption]
) -> Sheet:
    """A sheet of `formulas` with the assumptions of `pool` that they need.

    A quantity of the pool that a formula would compute stays as it is given. Raises UsageError for one that is missing,
    and for numbers that a formula makes nothing of.
    """
    kept = [formula for formula in formulas if formula.name not in pool]
    made = {formula.name for formula in kept}
    needed = dict.fromkeys(name for formula in kept for name in formula.inputs if name not in made)
    missing = [name for name in needed if name not in pool]
    if missing:
        raise UsageError(f"{title}: {missing[0]} is not known; give it with --set {missing[0]}=VALUE")
    names = dict.fromkeys((*needed, *(name for name in results if name in pool)))
    sheet = Sheet(title, tuple(pool[name] for name in names), tuple(kept), tuple(results))
    _check(sheet)
    return sheet


def _check(sheet: Sheet) -> None:
    known: dict[str, Value] = {each.name: each.value for each in sheet.assumptions}
    for formula in sheet.formulas:
        try:
            with np.errstate(divide="raise", invalid="raise", over="raise"):
                known[formula.name] = formula.value(known)
        except ArithmeticError as error:
            raise UsageError(
                f"{sheet.title}: {formula.name} = {formula.with_numbers(known)} has no value; "
                "give other numbers with --set"
            ) from error


def known_names(pool: Iterable[str], formulas: Sequence[Formula]) -> set[str]:
    """Everything that may be set: what is assumed, what is needed, and what would be computed."""
    return {*pool, *(name for formula in formulas for name in (formula.name, *formula.inputs))}


def with_settings(
    pool: Mapping[str, Assumption], settings: Mapping[str, float], formulas: Sequence[Formula]
) -> dict[str, Assumption]:
    """The pool with `settings` in it. Raises UsageError for a name that nothing here uses, and for a
    number that it cannot be."""
    units = {formula.name: formula.unit for formula in formulas}
    found, allowed = dict(pool), known_names(pool, formulas)
    for name, value in settings.items():
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            meant = f"did you mean {near[0]}?" if near else "--explain shows every name"
            raise UsageError(f"--set {name}={value:g}: nothing here is called {name}; {meant}")
        old = pool.get(name)
        unit = old.unit if old is not None else units.get(name, "as given")
        check_value(f"--set {name}={value:g}: {name}", value, unit)
        found[name] = Assumption(name, value, unit, "set on the command line", "now", value, value)
    for name in sorted(frozenset[str]().union(*(formula.divisors for formula in formulas)) & found.keys()):
        if found[name].value == 0:
            raise UsageError(f"{name} is 0, and is divided by; give it above 0, with --set or in the file")
    return found
