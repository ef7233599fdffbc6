"""A file that makes a prompt of a row: Jinja2 in its sandbox, with the row's columns as variables.

Templates come with data sets from anywhere, so one may look at nothing but the row: attributes that lead into Python,
other files and huge numbers are refused. What a row lacks is an error of that row and never an empty place in a prompt.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from windlass.errors import RequestError, StorageError, UsageError
from windlass.jobs.rows.row_file import MAX_ROW_BYTES
from windlass.units import format_size

WHOLE_ROW = "row"  # all columns by name, for names that are no variables: {{ row["Last Name"] }}
_MAX_TEMPLATE_BYTES = MAX_ROW_BYTES
_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
# What Python raises for an expression that makes no sense for a row's values.
_FAULTS = (
    TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError
)  # fmt: skip


class PromptTemplate:
    """`render` gives the prompt of a row; `needs` the columns it looks at, None for all."""

    def __init__(self, text: str, name: str = "template") -> None:
        """`name` is what errors call it. Raises UsageError, with the line, where the text is no template."""
        self.name = name
        environment = _Sandbox()
        try:
            tree = environment.parse(text, name)
            for node in tree.find_all(_OTHER_FILES):
                raise UsageError(f"{name}, line {node.lineno}: a template reads no other file; write its text in here")
            variables = meta.find_undeclared_variables(tree)
            self._template: Template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise UsageError(f"{name}, line {error.lineno}: {error.message}; see jinja.palletsprojects.com") from error
        except (*_FAULTS, SyntaxError) as error:  # nested deeper than Jinja or Python goes
            raise UsageError(f"{name} is no template: {_said(error)}; see jinja.palletsprojects.com") from error
        self.needs = None if WHOLE_ROW in variables else frozenset(variables)

    def render(self, columns: Mapping[str, object]) -> str:
        """Raises RequestError naming the columns that are to blame, as far as they are known."""
        try:
            text = self._template.render({WHOLE_ROW: columns, **columns})
        except _NothingToWrite as error:
            raise RequestError(f"{self.name} writes {self._nothings(columns)}; {error.message}") from error
        except UndefinedError as error:
            absent = sorted((self.needs or frozenset()) - set(columns))
            named = f" (the row has no column {', '.join(map(repr, absent))})" if absent else ""
            raise RequestError(f"{self.name}: {error.message}{named}; it knows the row's columns by name") from error
        except _FAULTS as error:
            raise RequestError(f"{self.name} fails for this row: {_said(error)}") from error
        if len(text) > MAX_ROW_BYTES:
            raise RequestError(f"{self.name} gives {len(text)} characters; a prompt may have {MAX_ROW_BYTES}")
        return text

    def _nothings(self, columns: Mapping[str, object]) -> str:
        """The columns that hold no text, of those that the template looks at."""
        names = [
            repr(name)
            for name, value in columns.items()
            if (value is None or isinstance(value, bytes)) and (self.needs is None or name in self.needs)
        ]
        return f"the column {', '.join(names)}, which holds no text" if names else "a value that is no text"


def read_template(path: str) -> PromptTemplate:
    """A template from its file. Raises UsageError for one that is absent or no template, StorageError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_TEMPLATE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"there is no file {path}; name a Jinja2 template with --template") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start}); name a Jinja2 template, a text file") from error
    if len(data) > _MAX_TEMPLATE_BYTES:
        raise UsageError(f"{path} has more than {format_size(_MAX_TEMPLATE_BYTES)}; name a Jinja2 template")
    return PromptTemplate(text, Path(path).name)


class _NothingToWrite(TemplateError):
    """A null, or bytes, would be written into the prompt."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Blocks and line ends as the chat templates of transformers have them."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        # Unoptimised: constant expressions are computed with the row, where what they do wrong is met.
        super().__init__(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_written, optimized=False
        )
        # Jinja's own escapes <, > and & for web pages, which prompts are not.
        self.filters["tojson"] = _to_json

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """A few characters of a template must not make a number or a text that fills the memory."""
        if operator == "**":
            raise SecurityError("** is not available in a template")
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise SecurityError("* is for numbers in a template")
        return super().call_binop(context, operator, left, right)


def _written(value: object) -> object:
    if value is None:
        raise _NothingToWrite('write {{ name or "" }} where a row may be without')
    if isinstance(value, bytes):
        raise _NothingToWrite("make it a column of text in UTF-8")
    return value


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def _said(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
