"""A row of answers as columns: what most readers want in a column of its own, and the whole response as JSON."""

import json
from collections.abc import Mapping, Sequence

Columns = dict[str, object]

# Name -> whether it is a number; the order is that of the table.
ANSWER_COLUMNS = {
    "custom_id": False,
    "text": False,
    "finish_reason": False,
    "error": False,
    "prompt_tokens": True,
    "completion_tokens": True,
    "response": False,
}


def answer_columns(row: Mapping[str, object]) -> Columns:
    """Of a row as `facts/batch_answer.py` writes it. Of several choices the first has the columns.

    `response` holds all of them. What a row has not (an error row has no text) is None.
    """
    response, error = _object(row.get("response")), _object(row.get("error"))
    body = _object(response.get("body"))
    choices = body.get("choices")
    choice = _object(choices[0]) if isinstance(choices, Sequence) and choices else {}
    usage = _object(body.get("usage"))
    return {
        "custom_id": _writable(row.get("custom_id")),
        "text": _writable(choice.get("text", _object(choice.get("message")).get("content"))),
        "finish_reason": choice.get("finish_reason"),
        "error": _writable(error.get("message")),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "response": _writable(json.dumps(response, ensure_ascii=False)) if response else None,
    }


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _writable(value: object) -> str | None:
    """Half a surrogate pair is written as the escape it came as, since a column of text is UTF-8."""
    return None if value is None else str(value).encode(errors="backslashreplace").decode()
