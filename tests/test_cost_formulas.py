"""Formulas, sheets, ranges and swings: held against Python's own arithmetic and against closed forms."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.economics import adapter, job, loss_law, money, search, serving, training
from windlass.economics.assumption import Assumption, exact, read_assumption
from windlass.economics.assumption_sets import content, own_file, settings_of
from windlass.economics.formula import Formula
from windlass.economics.number_text import count_text, number_text, quantity_text
from windlass.economics.sheet import Sheet, make_sheet, with_settings
from windlass.economics.uncertainty import ranges, tornado
from windlass.economics.vocabulary import own_assumptions, units
from windlass.errors import UsageError

FORMULAS = {
    name: value
    for module in (adapter, job, loss_law, money, search, serving, training)
    for name, value in vars(module).items()
    if isinstance(value, tuple) and value and all(isinstance(part, Formula) for part in value)
}
DATA = Path(loss_law.__file__).with_name("data")


def known(name: str, value: float, low: float | None = None, high: float | None = None) -> Assumption:
    return Assumption(name, value, "unit", "a test", "2026", value if low is None else low, high or value)


def product() -> Sheet:
    formulas = (Formula("area", "width * height", "m2", "of a field"),)
    pool = {each.name: each for each in (known("width", 2.0, 1.0, 8.0), known("height", 3.0, 2.9, 3.1))}
    return make_sheet("a field", formulas, ("area",), pool)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_computes_what_python_makes_of_its_text(name: str) -> None:
    values: dict[str, float] = {}
    for place, formula in enumerate(FORMULAS[name]):
        for place_in, part in enumerate(formula.inputs):
            values.setdefault(part, 0.31 + 0.07 * place + 0.011 * place_in)
        words = {"ceil": math.ceil, "min": min, "max": max, "volume": lambda price, saved: price / saved}
        words["volume"] = lambda price, saved: price / saved if saved > 0 else math.inf
        expected = eval(formula.expression, {"__builtins__": {}}, words | values)
        assert float(formula.value(values)) == pytest.approx(expected)
        values[formula.name] = expected


def test_the_arithmetic_that_is_explained_can_be_pasted_and_gives_its_result() -> None:
    sheet = search.january_2023({})
    values = sheet.values()
    for formula in sheet.formulas:
        pasted = eval(formula.with_numbers(values), {"__builtins__": {}})
        assert pasted == pytest.approx(float(values[formula.name]), rel=2e-3)
        assert f"  {formula.name} = {formula.expression}" in sheet.explained()


def test_the_range_of_a_product_is_that_of_two_lognormals() -> None:
    """Symmetric in the logarithm, so that the spread of the product has a closed form."""
    pool = {"a": known("a", 2.0, 1.0, 4.0), "b": known("b", 3.0, 1.5, 6.0)}
    sheet = make_sheet("two", (Formula("c", "a * b", "unit", ""),), ("c",), pool)
    factor = math.exp(math.sqrt(2) * math.log(2))
    found = ranges(sheet, draws=200_000)["c"]
    assert (found.low, found.middle, found.high) == pytest.approx((6 / factor, 6, 6 * factor), rel=0.02)
    assert ranges(sheet) == ranges(sheet) != ranges(sheet, seed=1)


@given(st.floats(0.01, 1e9), st.floats(1, 10), st.floats(1, 10))
def test_a_twentieth_is_drawn_below_low_and_another_above_high(value: float, down: float, up: float) -> None:
    each = known("a", value, value / down, value * up)
    ends = each.drawn(np.array([-1.6448536269514722, 0.0, 1.6448536269514722]))
    assert ends == pytest.approx([value / down, value, value * up])


def test_a_share_is_never_drawn_above_one() -> None:
    share = Assumption("a", 0.9, "share", "a test", "2026", 0.5, 0.99)
    assert share.drawn(np.linspace(-6, 6, 50)).max() == 1.0


def test_the_tornado_swings_one_assumption_at_a_time_widest_first() -> None:
    swings = tornado(product(), "area")
    assert [(s.name, s.at_low, s.at_high) for s in swings] == [("width", 3.0, 24.0), ("height", 5.8, 6.2)]


def test_what_is_given_takes_the_place_of_what_would_be_computed() -> None:
    sheet = product()
    pool = {each.name: each for each in sheet.assumptions}
    found = make_sheet("a field", sheet.formulas, ("area",), with_settings(pool, {"area": 7.0}, sheet.formulas))
    assert (found.value("area"), found.formulas) == (7.0, ())


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (lambda: with_settings({}, {"widht": 1.0}, product().formulas), "did you mean width"),
        (
            lambda: make_sheet("a field", product().formulas, (), {}),
            "width is not known; give it with --set width=VALUE",
        ),
        (lambda: settings_of(["width"]), "'width' is no name=value"),
        (lambda: settings_of(["width=much"]), "finite number"),
        (lambda: settings_of(["width=inf"]), "finite number"),
        (lambda: read_assumption({"name": "a", "value": 1}, "here"), "here: a lacks unit, source, date"),
        (lambda: own_file(Path("nowhere.json")), "nowhere.json cannot be read: No such file"),
    ],
)
def test_what_makes_no_sense_is_said_with_the_next_step(fails: object, message: str) -> None:
    assert callable(fails)
    with pytest.raises(UsageError, match=message):
        fails()


@pytest.mark.parametrize("low", [-1.0, 0.0, 3.0])
def test_a_range_that_does_not_hold_its_value_is_refused(low: float) -> None:
    entry = {"name": "a", "value": 2.0, "unit": "m", "source": "s", "date": "2026", "low": low}
    with pytest.raises(UsageError, match="the range must hold it"):
        read_assumption(entry, "here")


@pytest.mark.parametrize("file", sorted(path.stem for path in DATA.glob("*.json")))
def test_every_number_of_the_data_files_has_unit_source_and_date(file: str) -> None:
    entries: list[object] = []

    def collect(part: object) -> None:
        if isinstance(part, dict) and "value" in part:
            entries.append(part)
        elif isinstance(part, dict | list):
            for child in part.values() if isinstance(part, dict) else part:
                collect(child)

    collect(content(file))
    assert entries
    for entry in entries:
        each = read_assumption(entry, file)
        assert each.unit and len(each.source) > 5 and each.date[:2] == "20" and len(each.date) in (4, 7, 10)


def test_divisors_are_the_names_that_make_nothing_of_a_formula_where_they_are_zero() -> None:
    for formulas in FORMULAS.values():
        for formula in formulas:
            for name in formula.inputs:
                values = dict.fromkeys(formula.inputs, 0.25) | {name: 0.0}
                words = {"ceil": math.ceil, "min": min, "max": max, "volume": lambda price, saved: price}
                try:
                    eval(formula.expression, {"__builtins__": {}}, words | values)
                    fails = False
                except ZeroDivisionError:
                    fails = True
                assert fails == (name in formula.divisors), (formula.expression, name)


@pytest.mark.parametrize(
    ("name", "value", "unit", "message"),
    [
        ("use", 1.5, "share", "a share lies between 0 and 1"),
        ("use", -0.1, "share", "cannot be below 0"),
        ("electricity", -0.1, "USD/kWh", "cannot be below 0"),
        ("electricity", 1e31, "USD/kWh", "a number from 1e-30 to 1e\\+30"),
        ("electricity", 0.3, "EUR/kWh", "is in 'EUR/kWh', and is counted in USD/kWh"),
        ("electricty", 0.3, "USD/kWh", "no question uses the name 'electricty'; did you mean electricity"),
    ],
)
def test_a_file_with_what_cannot_be_is_refused(
    name: str, value: float, unit: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    entry = {"name": name, "value": value, "unit": unit, "source": "me", "date": "2026"}
    file.write_text(json.dumps([entry]))
    with pytest.raises(UsageError, match=message):
        own_assumptions(file)


def test_a_file_may_serve_several_questions_and_says_each_thing_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    entries = [
        {"name": name, "value": 0.4, "unit": units()[name], "source": "me", "date": "2026"}
        for name in ("electricity", "mfu", "provider_margin")
    ]
    file.write_text(json.dumps(entries))
    assert set(own_assumptions(file)) == {"electricity", "mfu", "provider_margin"}
    file.write_text(json.dumps([*entries, entries[0]]))
    with pytest.raises(UsageError, match="electricity stands there more than once"):
        own_assumptions(file)


def test_a_formula_without_a_value_is_named_with_its_numbers() -> None:
    formulas = (Formula("left", "a - b", "m", ""), Formula("share", "a / left", "m", ""))
    with pytest.raises(UsageError, match=r"a field: share = 2 / 0 has no value"):
        make_sheet("a field", formulas, ("share",), {"a": known("a", 2.0), "b": known("b", 2.0)})


def test_numbers_are_written_with_four_digits_and_their_unit() -> None:
    texts = [number_text(value) for value in (0.0095667, 1398071.6, 3.15e23, 0.0, 12.0, 2.667e-5, math.inf)]
    assert texts == ["0.009567", "1,398,000", "3.15e+23", "0", "12", "2.667e-05", "never"]
    # A count is no measurement: none of its digits is left out.
    assert [number_text(12288.0), number_text(12288.0, plain=True), number_text(12288.4)] == [
        "12,288",
        "12288",
        "12,290",
    ]
    assert [count_text(n) for n in (7e10, 1.4e12, 999.0, 1e30)] == ["70 billion", "1.4 trillion", "999", "1e+30"]
    assert quantity_text(6.03e9, "bytes") == "6.03 GB" and quantity_text(19_040, "s") == "19,040 s (5 h 17 min)"
    assert json.loads(json.dumps(exact("a", 1, "m", "s", "2026").as_dict()))["low"] == 1
