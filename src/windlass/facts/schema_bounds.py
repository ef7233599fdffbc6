"""What a JSON schema may be before anybody compiles it: so large, so deep, with every reference inside itself.

A schema may come from a stranger. A grammar is made of it in time and memory that grow with its text, but for
`multipleOf`: a divisor is a machine with as many states as it counts, and divisors that must hold together multiply.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from urllib.parse import unquote

from windlass.errors import UsageError

MOST_CHARACTERS = 128 * 1024
MOST_DEPTH = 64
MOST_DIVISOR = 10_000
# Steps from the whole into parts, and from part to part by references. The compiler recurses along them, and was seen
# to run out of an ordinary thread's stack (8 MiB), which ends the process, at 2,000 and more, never at 1,000.
MOST_STEPS = 600

# The compiler counts whole numbers in 64 bits and stays at the ends: from there on a bound says something else, and two
# of them at the lower end were seen to end the process.
MOST_BOUND = 9 * 10**18
# Beyond it the compiler, as most that read JSON, takes a whole number for the nearest that a double holds.
MOST_EXACT = 2**53

_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")

# Keywords that hold values, in which a "$ref" is a name like any other.
_DATA = frozenset({"const", "enum", "default", "examples"})
# Keywords whose members are named by whoever wrote the schema.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})

Place = tuple[str | int, ...]


def read_schema(name: str, value: object) -> str:
    """A schema, as JSON text or as what such a text says -> its JSON text, members in the order they were given.

    Raises UsageError with the place of what is wrong.
    """
    schema = _parsed(name, value) if isinstance(value, str) else value
    if not isinstance(schema, (Mapping, bool)):
        raise UsageError(f'{name} must be a JSON schema, got {schema!r:.60}; write it as {{"type": "object"}}')
    _check_depth(name, schema)
    try:
        text = json.dumps(dict(schema) if isinstance(schema, Mapping) else schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} holds something that JSON cannot say: {error}; write it as JSON text") from error
    check_characters(name, text)
    _check_numbers(name, schema)
    _check_words(name, schema)
    _check_references(name, schema)
    return text


def check_characters(name: str, text: str) -> None:
    """Raises UsageError for more text than a grammar is made of, and for halves of characters."""
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"{name} has {len(text)} characters, and at most {MOST_CHARACTERS} are read; say less with it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} holds half a surrogate pair at character {error.start}; write it whole") from error


def pointer(place: Place) -> str:
    """A place as RFC 6901 writes it, behind a '#' as in a reference."""
    return "#" + "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in place)


def _parsed(name: str, text: str) -> object:
    check_characters(name, text)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UsageError(f"{name} is no JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested more than {MOST_DEPTH} deep; take parts out into $defs") from error
    except ValueError as error:  # NaN, or a number of more digits than Python converts
        raise UsageError(f"{name} is no JSON that can be read: {error}") from error


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no number")


def _check_depth(name: str, schema: object) -> None:
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise UsageError(f"{name} is nested more than {MOST_DEPTH} deep; take parts out into $defs")
        level = [part for value in level for part in _parts(value)]


def _parts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []


def _check_numbers(name: str, schema: object) -> None:
    for place, word, value in _words(schema, ()):
        for number in _numbers(value, word in _DATA):
            problem = None
            if number != number or abs(number) > sys.float_info.max:
                problem = "which no double holds"
            elif (word in _LOWER and number > MOST_BOUND) or (word in _UPPER and number < -MOST_BOUND):
                problem = f"and bounds are kept to {MOST_BOUND:.0e} either way"
            elif word in ("const", "enum") and isinstance(number, int) and abs(number) > MOST_EXACT:
                problem = f"and whole numbers are told apart up to {MOST_EXACT}"
            if problem is not None:
                raise UsageError(
                    f"{name} has {number!s:.24} at {pointer(place)}, {problem}; leave it out and check the answer, "
                    "or ask for a string"
                )


def _numbers(value: object, whole: bool) -> Iterator[int | float]:
    """Those in what a keyword holds; where it holds no schemas, those inside objects too (`whole`)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, (list, tuple)) or (whole and isinstance(value, Mapping)):
        for part in _parts(value):
            yield from _numbers(part, whole)


def _check_words(name: str, schema: object) -> None:
    divisors = list[Fraction]()
    for place, word, value in _words(schema, ()):
        if word == "$ref" and isinstance(value, str) and not value.startswith("#"):
            raise UsageError(
                f"{name} refers to {value!r:.60} at {pointer(place)}, and nothing is fetched from elsewhere; put what "
                f'it names into $defs and write "#/$defs/..."'
            )
        if word == "multipleOf" and isinstance(value, (int, float)) and value > 0:
            divisors.append(Fraction(str(value)))
            cases = _cases(divisors)
            if cases > MOST_DIVISOR:
                raise UsageError(
                    f"{name} asks at {pointer(place)} for multiples of {value!s:.20}, with the others of it "
                    f"{cases!s:.20} cases, and at most {MOST_DIVISOR} are kept apart; leave it out and check the answer"
                )


def _check_references(name: str, schema: object) -> None:
    """How far references may lead, were each of them followed once behind another."""
    steps, seen = 0, set[str]()
    for _, word, target in _words(schema, ()):
        if word != "$ref" or not isinstance(target, str) or target in seen:
            continue
        seen.add(target)
        behind = (len(place) for place, inner, _ in _words(_at(schema, target), ()) if inner == "$ref")
        steps += 1 + max(behind, default=0)
        if steps > MOST_STEPS:
            raise UsageError(
                f"{name} has references that lead more than {MOST_STEPS} steps deep, counted to {target:.60}; use "
                "fewer parts that refer to others"
            )


def _at(schema: object, target: str) -> object:
    """What a reference into the schema names; the whole where that cannot be told, since it may be anything."""
    found: object = schema
    for step in target.removeprefix("#").split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, (list, tuple)) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return schema
    return found


def _cases(divisors: list[Fraction]) -> int:
    """The least number that all of them divide, counted in the finest digit of any."""
    scale = math.lcm(*(divisor.denominator for divisor in divisors))
    return math.lcm(*(int(divisor * scale) for divisor in divisors))


def _words(schema: object, place: Place) -> Iterator[tuple[Place, str, object]]:
    """Every keyword of a schema and of those inside it, with its place."""
    if isinstance(schema, (list, tuple)):
        for index, part in enumerate(schema):
            yield from _words(part, (*place, index))
    if not isinstance(schema, Mapping):
        return
    for word, value in schema.items():
        here = (*place, str(word))
        yield here, str(word), value
        if word in _NAMED and isinstance(value, Mapping):
            for key, part in value.items():
                yield from _words(part, (*here, str(key)))
        elif word not in _DATA:
            yield from _words(value, here)
