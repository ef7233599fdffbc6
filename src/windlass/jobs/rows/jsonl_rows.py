"""Rows of a file with one JSON object a line: OpenAI's form and the short form, or any object through a template."""

from collections.abc import Iterator
from pathlib import Path

from windlass.errors import RequestError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow, parse_row, read_row_object
from windlass.facts.prompt_form import PromptForm
from windlass.jobs.rows.row_file import MAX_ROW_BYTES, bounded_lines, cheap_to_count, is_regular, opened_rows
from windlass.units import format_size

_BOM = b"\xef\xbb\xbf"


class JsonlRows:
    """A row's `line` is its line in the file; blank lines are none. Without a form a row says itself what it asks.

    A line of more than `row_bytes` is a bad row.
    """

    def __init__(self, path: str, form: PromptForm | None = None, row_bytes: int = MAX_ROW_BYTES) -> None:
        self.path = path
        self.repeatable = is_regular(path)
        self._form = form
        self._row_bytes = row_bytes

    def rows(self) -> Iterator[BatchRow | BadRow]:
        """Raises UsageError and StorageError."""
        for line, raw in self._lines():
            if isinstance(raw, int):
                most = format_size(self._row_bytes)
                yield BadRow(line, None, f"the line has {format_size(raw)}, and a row at most {most}; shorten it")
            else:
                yield parse_row(line, raw) if self._form is None else _by_form(self._form, line, raw)

    def count(self) -> int | None:
        """Rows, where it is cheap to know."""
        return sum(1 for _ in self._lines()) if cheap_to_count(self.path) else None

    def describe(self) -> str:
        """For messages."""
        return "standard input" if self.path == "-" else f"{self.path} (JSON lines)"

    def _lines(self) -> Iterator[tuple[int, bytes | int]]:
        """The lines that are not blank; of one that is too long the bytes it has."""
        with opened_rows(self.path) as file:
            for line, raw in enumerate(bounded_lines(file, self._row_bytes), 1):
                if isinstance(raw, int):
                    yield line, raw
                    continue
                raw = raw.removeprefix(_BOM) if line == 1 else raw
                if raw.strip():
                    self._refuse_list(line, raw)
                    yield line, raw

    def _refuse_list(self, line: int, raw: bytes) -> None:
        if line == 1 and raw.lstrip().startswith(b"[") and Path(self.path).suffix.lower() == ".json":
            raise UsageError(
                f"{self.path} holds one JSON list, which would have to be read whole; write an object a line, "
                f"as with jq -c '.[]' {self.path} > {Path(self.path).with_suffix('.jsonl')}"
            )


def _by_form(form: PromptForm, line: int, raw: bytes) -> BatchRow | BadRow:
    try:
        return form.row(line, read_row_object(raw))
    except RequestError as error:
        return BadRow(line, None, str(error))
