"""The flags that say what form every answer must have."""

from dataclasses import dataclass
from typing import Annotated

import typer

from windlass.cli.late import require_guidance
from windlass.errors import UsageError
from windlass.facts.structured_outputs import StructuredOutputsParams
from windlass.jobs.schema_file import read_schema_file

_PANEL = "Form of the answer"


@dataclass(frozen=True, slots=True)
class FormFlags:
    """At most one is given. `schema` is a file; once it has been read, what it holds."""

    schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="JSON that this JSON schema allows.", rich_help_panel=_PANEL)
    ] = None
    regex: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="All of it as this regular expression.", rich_help_panel=_PANEL),
    ] = None
    choice: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="One of these texts.", rich_help_panel=_PANEL)
    ] = None

    def read_form(self) -> None:
        """Reads the schema, once, since it may be a pipe. Raises UsageError and StorageError."""
        given = [name for name in ("schema", "regex", "choice") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"--{given[0]} and --{given[1]} both say what form the answer has; leave one of them out")
        if given:
            require_guidance()
        if self.schema is not None:
            object.__setattr__(self, "schema", read_schema_file(self.schema))

    def answer_form(self) -> StructuredOutputsParams | None:
        """What was said on the command line. Raises UsageError."""
        if self.schema is not None:
            return StructuredOutputsParams(json=self.schema)
        if self.regex is not None:
            return StructuredOutputsParams(regex=self.regex)
        if self.choice is not None:
            return StructuredOutputsParams(choice=[text.strip() for text in self.choice.split(",")])
        return None
