"""OpenAI's `response_format`: text, any JSON object, or JSON by a schema.

An answer is held to its schema whether `strict` says so or not; OpenAI's subset for strict schemas is not asked for.
"""

from collections.abc import Mapping

from windlass.errors import RequestError, UsageError
from windlass.facts.json_value import read_boolean, read_object, read_text
from windlass.facts.structured_outputs import StructuredOutputsParams

_TYPES = ("text", "json_object", "json_schema")


def read_response_format(value: object) -> StructuredOutputsParams | None:
    """What form an answer must have; None for text. Raises RequestError naming the field that is wrong."""
    said = read_object("response_format", value)
    kind = said.get("type")
    match kind:
        case "text":
            _refuse_others("response_format", said, ("type",))
            return None
        case "json_object":
            _refuse_others("response_format", said, ("type",))
            return StructuredOutputsParams(json_object=True)
        case "json_schema":
            _refuse_others("response_format", said, ("type", "json_schema"))
            return _by_schema(read_object("response_format.json_schema", said.get("json_schema")))
    raise RequestError(f"response_format.type must be one of {', '.join(_TYPES)}, got {kind!r:.60}")


def _by_schema(said: Mapping[str, object]) -> StructuredOutputsParams:
    where = "response_format.json_schema"
    _refuse_others(where, said, ("name", "description", "schema", "strict"))
    read_text(f"{where}.name", said.get("name"))
    if said.get("description") is not None:
        read_text(f"{where}.description", said["description"])
    if said.get("strict") is not None:
        read_boolean(f"{where}.strict", said["strict"])
    schema = read_object(f"{where}.schema", said.get("schema"))
    try:
        return StructuredOutputsParams(json=schema)
    except UsageError as error:
        raise RequestError(f"{where}.schema: {error}") from error


def _refuse_others(where: str, said: Mapping[str, object], known: tuple[str, ...]) -> None:
    for name in said:
        if name not in known:
            raise RequestError(f"{where} has an unknown field {name!r:.60}; it takes {', '.join(known)}")
