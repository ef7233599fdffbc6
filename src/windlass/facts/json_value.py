"""Values of a JSON object, each read as the type it must have. A reader raises RequestError with the field's name."""

import sys

from windlass.errors import RequestError


def read_text(name: str, value: object) -> str:
    """A string that UTF-8 can carry."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a string, got {value!r:.60}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} holds half a surrogate pair at character {error.start}; write it whole") from error
    return value


def read_whole(name: str, value: object) -> int:
    """An integer; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be a whole number, got {value!r:.60}")
    return value


def read_number(name: str, value: object) -> float:
    """A number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{name} must be a number, got {value!r:.60}")
    if abs(value) > sys.float_info.max:
        raise RequestError(f"{name} is too large for a number")
    return float(value)


def read_object(name: str, value: object) -> dict[str, object]:
    """An object; what it holds is checked by whom it is for."""
    if not isinstance(value, dict):
        raise RequestError(f"{name} must be an object, got {value!r:.60}")
    return value


def read_boolean(name: str, value: object) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, got {value!r:.60}")
    return value


def read_texts(name: str, value: object) -> tuple[str, ...]:
    """A string or a list of strings."""
    items = value if isinstance(value, list) else [value]
    return tuple(read_text(name, item) for item in items)


def read_ids(name: str, value: object) -> tuple[int, ...]:
    """A list of token ids."""
    if not isinstance(value, list):
        raise RequestError(f"{name} must be a list of token ids, got {value!r:.60}")
    return tuple(read_whole(name, item) for item in value)
