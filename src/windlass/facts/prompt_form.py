"""How a row of named columns becomes a question: a column's text or a text rendered from several, asked as it is or
as a message. The sampling fields of a JSON row have no meaning here: its fields are columns like any other. Columns are
not carried into the answers, which are joined to their rows by `custom_id`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from windlass.errors import RequestError, UsageError
from windlass.facts.batch_body import parse_body
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.json_value import read_text

Columns = Mapping[str, object]

DEFAULT_COLUMN = "prompt"
ID_COLUMNS = ("custom_id", "id")  # the first that a row has names it


@dataclass(frozen=True, slots=True)
class PromptForm:
    """`render` makes the text of a row and raises RequestError where it cannot; `column` is the text where it is None.

    `needs` are the columns that `render` looks at, None for all. `chat`: the text is what a user says, after `system`.
    """

    column: str = DEFAULT_COLUMN
    render: Callable[[Columns], str] | None = None
    needs: frozenset[str] | None = None
    chat: bool = False
    system: str | None = None

    def wanted(self, columns: tuple[str, ...]) -> list[str]:
        """Of a table's columns those that have to be read."""
        if self.render is not None and self.needs is None:
            return list(columns)
        text = {self.column} if self.render is None else self.needs or frozenset[str]()
        return [name for name in columns if name in text or name in ID_COLUMNS]

    def check(self, columns: tuple[str, ...], path: str) -> None:
        """Raises UsageError where no row of a table with these columns could be asked."""
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise UsageError(f"{path} has the column {repeated[0]!r} {columns.count(repeated[0])} times; rename one")
        if len(columns) == 1 and ";" in columns[0]:
            raise UsageError(f"{path} parts its fields by semicolons ({columns[0]!r:.60}); part them by commas")
        if self.render is None and self.column not in columns:
            raise UsageError(
                f"{path} has no column {self.column!r}; it has {named_columns(columns)}. Name the one that holds the "
                f"prompts with --column, or make prompts of several with --template"
            )

    def row(self, line: int, columns: Columns) -> BatchRow | BadRow:
        """The question that a row asks, or why it asks none, with the column that is to blame."""
        custom_id: str | None = None
        try:
            custom_id = _custom_id(columns) or f"line-{line}"
            text = self.render(columns) if self.render is not None else _text(columns, self.column)
            if not text.strip():
                raise RequestError("the template gives an empty prompt for this row; fill its columns, or leave it out")
            return BatchRow(line, custom_id, parse_body(self._body(text), self.chat))
        except RequestError as error:
            return BadRow(line, custom_id, str(error))

    def _body(self, text: str) -> dict[str, object]:
        if not self.chat:
            return {"prompt": text}
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"messages": [*system, {"role": "user", "content": text}]}


def named_columns(columns: Columns | tuple[str, ...]) -> str:
    """Column names for a message, few enough to be read."""
    names = [repr(name) for name in columns]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _text(columns: Columns, name: str) -> str:
    if name not in columns:
        raise RequestError(f"there is no column {name!r}; the row has {named_columns(columns) or 'none'}")
    value = columns[name]
    if value is None or value == "":
        raise RequestError(f"column {name!r} is empty; write a text, or leave the row out")
    if isinstance(value, bytes):
        raise RequestError(f"column {name!r} holds {len(value)} bytes that are no UTF-8; make it a column of text")
    if isinstance(value, list | tuple | dict):
        raise RequestError(f"column {name!r} holds a {type(value).__name__}, not a text; say how with --template")
    text = str(value)
    if not text.strip():
        raise RequestError(f"column {name!r} holds blanks only; write a text, or leave the row out")
    return text


def _custom_id(columns: Columns) -> str | None:
    """None where the row has no name, so that its place is one."""
    for name in ID_COLUMNS:
        if name in columns:
            value = columns[name]
            if isinstance(value, bytes | list | tuple | dict):
                raise RequestError(f"column {name!r} must be a text or a number, got {value!r:.60}")
            return None if value is None else read_text(f"column {name!r}", str(value))
    return None
