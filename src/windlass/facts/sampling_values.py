"""Values of SamplingParams, each read as the type it must have. A reader raises UsageError with the field's name."""

import math
import sys
from collections.abc import Collection, Mapping
from typing import TypeGuard

from windlass.errors import UsageError
from windlass.facts.plain_number import plain_real, plain_whole

# Of a whole number that a float can hold.
_MOST_DIGITS = sys.float_info.max_10_exp


def require_whole(name: str, value: object, least: int | None) -> None:
    """A whole number from `least` up."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} must be a whole number, got {value!r} ({type(value).__name__}); write it as {name}=1")
    _refuse_vast(name, value)
    if least is not None and value < least:
        raise UsageError(f"{name} must be {least} or more, got {value}; write it as {name}={max(least, 1)}")


def require_number(name: str, value: object) -> None:
    """A finite number."""
    if isinstance(value, int):
        _refuse_vast(name, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(
            f"{name} must be a finite number, got {value!r} ({type(value).__name__}); write it as {name}=0.7"
        )


def require_bool(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")


def read_strings(name: str, value: object) -> tuple[str, ...]:
    """One string or several; None is none."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise UsageError(f'{name} must be a string or a list of strings, got {value!r}; write it as {name}=["\\n"]')
    return tuple(value)


def read_token_ids(name: str, value: object) -> tuple[int, ...]:
    """Ids in any collection; None is none."""
    if value is None:
        return ()
    if not isinstance(value, Collection) or isinstance(value, (str, bytes, Mapping)):
        raise UsageError(f"{name} must be a list of token ids, got {value!r}; write it as {name}=[2]")
    return tuple(_token_id(name, item) for item in value)


def read_biases(name: str, value: object, most: float) -> tuple[tuple[int, float], ...]:
    """Pairs of id and bias, by id; None is none. Ids may be written as JSON has them, as strings."""
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} must map token ids to numbers, got {value!r:.60}; write it as {name}={{2: -100}}")
    pairs = {}
    for key, number in value.items():
        token_id = _token_id(name, int(key) if _is_written_id(key) else key)
        bias = plain_real(number)
        if bias is None or not -most <= bias <= most:
            raise UsageError(
                f"{name} gives {number!r:.60} to token {token_id}; a bias is a number from {-most:g} to {most:g}"
            )
        pairs[token_id] = float(bias)
    return tuple(sorted(pairs.items()))


def _is_written_id(key: object) -> TypeGuard[str]:
    return isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= _MOST_DIGITS


def _refuse_vast(name: str, value: int) -> None:
    """What no float holds; Python would not even write down some of it."""
    if abs(value) > sys.float_info.max:
        raise UsageError(f"{name} is a number of more than {_MOST_DIGITS} digits; write a smaller one")


def _token_id(name: str, value: object) -> int:
    token_id = plain_whole(value)
    if token_id is not None:
        _refuse_vast(name, token_id)
    if token_id is None or token_id < 0:
        raise UsageError(f"{name} holds {value!r:.60}, which is no token id; ids are whole numbers from 0")
    return token_id
