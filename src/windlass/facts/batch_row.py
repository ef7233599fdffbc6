"""One line of a batch file: a question in OpenAI's form or in the short form, or the reason why it is none.

{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 8}}
{"prompt": "Once", "max_tokens": 8}
{"messages": [{"role": "user", "content": "Hello"}]}
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from windlass.errors import RequestError
from windlass.facts.batch_body import BatchBody, parse_body
from windlass.facts.json_value import read_text

COMPLETIONS, CHAT_COMPLETIONS = "/v1/completions", "/v1/chat/completions"

_ENVELOPE = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A question. `line` counts from 1 in the file; `custom_id` is `line-<line>` where the row names none."""

    line: int
    custom_id: str
    body: BatchBody

    @property
    def url(self) -> str:
        """The form in which the answer is written."""
        return COMPLETIONS if self.body.messages is None else CHAT_COMPLETIONS


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that cannot be answered. `custom_id` is None where it could not be read."""

    line: int
    custom_id: str | None
    reason: str


def parse_rows(lines: Iterable[bytes]) -> list[BatchRow | BadRow]:
    """Every line that is not blank, in order. The second of two rows with one `custom_id` is a bad row."""
    plain = (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw for number, raw in enumerate(lines, 1))
    return list(named_once(parse_row(number, raw) for number, raw in enumerate(plain, 1) if raw.strip()))


def named_once(rows: Iterable[BatchRow | BadRow]) -> Iterator[BatchRow | BadRow]:
    """The same rows, but the second of two with one `custom_id` is a bad row. Every name so far is kept in memory."""
    seen: dict[str, int] = {}
    for row in rows:
        if isinstance(row, BatchRow) and row.custom_id in seen:
            yield BadRow(
                row.line, row.custom_id, f"custom_id {row.custom_id!r} is that of line {seen[row.custom_id]} too"
            )
            continue
        if isinstance(row, BatchRow):
            seen[row.custom_id] = row.line
        yield row


def parse_row(line: int, raw: bytes) -> BatchRow | BadRow:
    """One line of the file."""
    custom_id: str | None = None
    try:
        row = read_row_object(raw)
        custom_id = _read_custom_id(row)
        body, chat = _read_envelope(row)
        return BatchRow(line, custom_id or f"line-{line}", parse_body(body, chat))
    except RequestError as error:
        return BadRow(line, custom_id, str(error))


def read_row_object(raw: bytes) -> dict[str, object]:
    """The object of a line. Raises RequestError for anything else."""
    try:
        # Without its end: an object that is not closed is broken off where the line ends, not in the next one.
        row = json.loads(raw.decode("utf-8-sig").rstrip(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}") from error
    except json.JSONDecodeError as error:
        raise RequestError(f"not JSON: {error.msg} at column {error.pos + 1}") from error
    except RecursionError as error:
        raise RequestError("not a row: the JSON is nested too deep") from error
    except ValueError as error:  # a number of more digits than Python converts
        most = sys.get_int_max_str_digits()
        raise RequestError(
            f"a number in the row has more than {most:,} digits, which is more than can be read; write a shorter one"
        ) from error
    if not isinstance(row, dict):
        raise RequestError(f"a row is a JSON object, got {type(row).__name__}")
    return row


def _refuse_constant(name: str) -> object:
    raise RequestError(f"not JSON: {name} is no number; leave the field out or write a number")


def _read_custom_id(row: Mapping[str, object]) -> str | None:
    custom_id = row.get("custom_id")
    return None if custom_id is None else read_text("custom_id", custom_id)


def _read_envelope(row: Mapping[str, object]) -> tuple[Mapping[str, object], bool]:
    """The body and whether it is a chat. A row without `url` and `body` is the short form: its own body."""
    if "url" not in row and "body" not in row:
        short = {name: value for name, value in row.items() if name not in _ENVELOPE}
        return short, "messages" in short
    if strange := sorted(set(row) - _ENVELOPE):
        raise RequestError(f"unknown field {strange[0]!r:.60} beside custom_id, method, url and body; put it into body")
    if row.get("method", "POST") != "POST":
        raise RequestError(f"method must be POST, got {row['method']!r:.60}")
    url, body = row.get("url"), row.get("body")
    if url not in (COMPLETIONS, CHAT_COMPLETIONS):
        raise RequestError(f"url must be {COMPLETIONS} or {CHAT_COMPLETIONS}, got {url!r:.60}")
    if not isinstance(body, dict):
        raise RequestError(f"body must be a JSON object, got {body!r:.60}")
    return body, url == CHAT_COMPLETIONS
