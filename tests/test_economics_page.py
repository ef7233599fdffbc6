"""docs/economics.md says what the program computes: each of its formulas stands in the code, word for word."""

import re
from pathlib import Path

from windlass.economics import job, loss_law, money, serving, training
from windlass.economics.formula import Formula

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "economics.md").read_text(encoding="utf-8")


def test_every_formula_of_the_page_is_one_of_the_program() -> None:
    stated = set(re.findall(r"^(\w+ = .+)$", PAGE, re.MULTILINE))
    tuples = [value for module in (job, loss_law, money, serving, training) for value in vars(module).values()]
    known = {
        f"{formula.name} = {formula.expression}"
        for value in tuples
        if isinstance(value, tuple)
        for formula in value
        if isinstance(formula, Formula)
    }
    assert len(stated) > 15 and stated - known == set()
