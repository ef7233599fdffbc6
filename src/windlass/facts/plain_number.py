"""Numbers of any library (numpy's, torch's) as Python's own, so that what is computed or written with them is plain.

A bool is no number here: where one stands for a number, something else was meant.
"""

import operator
from numbers import Real
from typing import SupportsIndex


def plain_whole(value: object) -> int | None:
    """`np.int64(3)` -> 3; None for what is no whole number."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # arrays and numpy's bools have the method and refuse
        return None


def plain_real(value: object) -> int | float | None:
    """`np.float32(0.5)` or `torch.tensor(0.5)` -> 0.5; None for what is no real number."""
    if isinstance(value, bool):
        return None
    if type(value) is float:
        return value
    whole = plain_whole(value)
    if whole is not None:
        return whole
    if isinstance(value, Real):
        return float(value)
    held = getattr(value, "item", None)
    if getattr(value, "ndim", None) != 0 or not callable(held):
        return None
    number = held()  # torch's scalars, and arrays without a dimension, are no Real
    return number if type(number) is float else None
