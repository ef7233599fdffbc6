"""A formula as a value: it is computed, explained with its numbers, and printed in the documentation from one text.

The language is arithmetic: names, numbers, + - * / **, and the functions of FUNCTIONS. Values may be arrays of draws.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.economics.number_text import number_text

Value = float | NDArray[np.float64]


def volume(price: Value, saving: Value) -> Value:
    """After how many units `price` is earned back by `saving` on each; infinite where nothing is saved."""
    gained = np.asarray(saving) > 0
    return np.where(gained, price / np.where(gained, saving, 1.0), np.inf)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ceil": np.ceil, "min": np.minimum, "max": np.maximum, "volume": volume,
}  # fmt: skip
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Formula:
    """`name` is what comes of `expression`, in `unit`; `meaning` says in words what it is."""

    name: str
    expression: str
    unit: str
    meaning: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names that it needs, in the order they stand in."""
        found = [node for node in ast.walk(parsed(self.expression)) if isinstance(node, ast.Name)]
        ordered = sorted(found, key=lambda node: node.col_offset)
        return tuple(dict.fromkeys(node.id for node in ordered if node.id not in FUNCTIONS))

    @property
    def divisors(self) -> frozenset[str]:
        """The names, alone or in a product, that something is divided by: where one is 0 there is no value."""
        nodes = ast.walk(parsed(self.expression))
        found = [_factors(node.right) for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)]
        return frozenset().union(*found)

    def value(self, known: Mapping[str, Value]) -> Value:
        """What comes of it."""
        return _value(parsed(self.expression), known)

    def with_numbers(self, known: Mapping[str, Value]) -> str:
        """The expression, with every name replaced by its value."""
        tree = _Numbers(known).visit(ast.parse(self.expression, mode="eval").body)
        return ast.unparse(tree)


@cache
def parsed(expression: str) -> ast.expr:
    """The expression as a tree."""
    return ast.parse(expression, mode="eval").body


def _factors(node: ast.expr) -> frozenset[str]:
    if isinstance(node, ast.Name):
        return frozenset((node.id,))
    if not isinstance(node, ast.BinOp):
        return frozenset()
    if isinstance(node.op, ast.Mult | ast.Div):
        return _factors(node.left) | _factors(node.right)
    return _factors(node.left) if isinstance(node.op, ast.Pow) else frozenset()


def _value(node: ast.expr, known: Mapping[str, Value]) -> Value:
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int | float), "a constant of the language is a number"
        return float(node.value)
    if isinstance(node, ast.Name):
        return known[node.id]
    if isinstance(node, ast.BinOp):
        found: Value = _OPERATORS[type(node.op)](_value(node.left, known), _value(node.right, known))
        return found
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name), "no other syntax is in the language"
    called: Value = FUNCTIONS[node.func.id](*(_value(part, known) for part in node.args))
    return called


class _Numbers(ast.NodeTransformer):
    """Puts numbers in the place of names."""

    def __init__(self, known: Mapping[str, Value]) -> None:
        self._known = known

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """The name of a function stays."""
        if node.id in FUNCTIONS:
            return node
        return ast.Name(number_text(float(self._known[node.id]), plain=True), node.ctx)
