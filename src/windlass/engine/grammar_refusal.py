"""What is wrong with a form, in a line: the compiler's own words, with the place of the schema that they are about."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from windlass.facts.schema_bounds import Place, pointer
from windlass.facts.structured_outputs import StructuredOutputsParams

# Of the parts of a schema that are tried alone to find the one that is refused: it must not cost more than the schema.
MOST_TRIED = 512 * 1024

_CARET = re.compile(r"^( *)\^", re.MULTILINE)
_IN_REGEX = re.compile(r"^error: (.*)", re.MULTILINE)
_OF_ONE = ("items", "additionalProperties", "if", "then", "else", "not", "contains", "propertyNames")
_OF_LISTS = ("prefixItems", "anyOf", "allOf", "oneOf", "items")
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions")

Compile = Callable[[str], str]


def refusal(asked: StructuredOutputsParams, said: str, compiled: Compile) -> str:
    """`said` is the compiler's message; `compiled` gives its message for the text of another schema, "" for none."""
    what = _one_line(said)
    if asked.kind == "json":
        place = _place_of(str(asked.form), said, compiled)
        return f"the JSON schema cannot be followed: {what}, at {place}; change it, or check the answer afterwards"
    return f"the {asked.kind} cannot be followed: {what}; correct it"


def _one_line(said: str) -> str:
    """Messages about regular expressions draw a picture, with a caret under the place."""
    in_regex, caret = _IN_REGEX.search(said), _CARET.search(said[said.find("regex parse error") :])
    if "regex parse error" in said and in_regex and caret:
        return f"{in_regex[1]}, at character {max(len(caret[1]) - 4, 0) + 1} of the expression"
    return said.splitlines()[0][:300] if said.strip() else "no reason is given"


def _place_of(text: str, said: str, compiled: Compile) -> str:
    """The innermost part that is refused alone with the same words; the whole where none is."""
    schema, tried = json.loads(text), 0
    if not isinstance(schema, dict):
        return pointer(())
    shared = {word: schema[word] for word in ("$defs", "definitions") if word in schema}
    found: Place = ()
    parts = list(_parts(schema, ()))
    while parts and tried < MOST_TRIED:
        place, part = parts.pop(0)
        alone = json.dumps(
            part | shared if isinstance(part, dict) and place[0] not in shared else part, ensure_ascii=False
        )
        tried += len(alone)
        if compiled(alone) == said:
            found, parts = place, list(_parts(part, place))
    return pointer(found)


def _parts(schema: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """The schemas right inside a schema."""
    if not isinstance(schema, Mapping):
        return
    for word in _OF_NAMES:
        named = schema.get(word)
        if isinstance(named, Mapping):
            yield from (((*place, word, name), part) for name, part in named.items())
    for word in _OF_LISTS:
        listed = schema.get(word)
        if isinstance(listed, list):
            yield from (((*place, word, index), part) for index, part in enumerate(listed))
    yield from (((*place, word), schema[word]) for word in _OF_ONE if isinstance(schema.get(word), (Mapping, bool)))
