"""docs/economics.md says what the program computes: each of its formulas stands in the code, word for word, and its
worked case comes out as it is told."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from windlass.cli.main import app
from windlass.economics import adapter, job, loss_law, money, serving, training
from windlass.economics.formula import Formula

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "economics.md").read_text(encoding="utf-8")


def test_every_formula_of_the_page_is_one_of_the_program() -> None:
    stated = set(re.findall(r"^(\w+ = .+)$", PAGE, re.MULTILINE))
    tuples = [value for module in (adapter, job, loss_law, money, serving, training) for value in vars(module).values()]
    known = {
        f"{formula.name} = {formula.expression}"
        for value in tuples
        if isinstance(value, tuple)
        for formula in value
        if isinstance(formula, Formula)
    }
    assert len(stated) > 15 and stated - known == set()


@pytest.mark.slow
@pytest.mark.parametrize(("allowed", "column"), [((), 0), (("--allow", "int8,int4"), 2)])
def test_the_worked_case_of_the_page_is_what_the_program_says(allowed: tuple[str, ...], column: int) -> None:
    command = re.search(r"^windlass cost (job llama-3-70b .+)$", PAGE, re.MULTILINE)
    assert command is not None
    result = CliRunner().invoke(app, ["cost", *command[1].split(), *allowed, "--json"])
    told = json.loads(result.stdout)["sheets"][0]["quantities"]
    rows = {
        "energy": "energy",
        "running_cost": "running cost here",
        "own_cost": "with the machine's price in it",
        "rented_cost": "one rented H100 at $2.69 an hour",
        "api_cost": "an API",
    }
    for name, row in rows.items():
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| {row} |"))
        stated = float(line.split("|")[2 + column].strip(" $kWh"))
        assert told[name]["value"] == pytest.approx(stated, rel=0.03), name
