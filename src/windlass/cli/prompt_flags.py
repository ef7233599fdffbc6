"""The flags that say how a row of a table becomes a prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.late import late
from windlass.errors import StorageError, UsageError
from windlass.facts.prompt_form import DEFAULT_COLUMN, PromptForm

_PANEL = "Prompts of a table (CSV, Parquet; JSON lines too)"


@dataclass(frozen=True, slots=True)
class PromptFlags:
    """None is as the file has it: JSON lines say what they ask, a table has a column `prompt`."""

    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column that holds the prompts.", rich_help_panel=_PANEL)
    ] = None
    template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A Jinja2 template that makes a prompt of a row's columns.", rich_help_panel=_PANEL
        ),
    ] = None
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask it as a user's message, by the chat template.", rich_help_panel=_PANEL)
    ] = False
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With --chat: the system message.", rich_help_panel=_PANEL)
    ] = None

    def told(self) -> dict[str, object]:
        """By values that JSON can hold; a template by what is written in it. Raises StorageError."""
        template = None
        if self.template is not None:
            try:
                template = self.template.read_bytes().decode(errors="backslashreplace")
            except OSError as error:
                raise StorageError(f"cannot read {self.template}: {error.strerror}; name another file") from error
        return {"column": self.column, "template": template, "chat": self.chat, "system": self.system}

    def form(self) -> PromptForm | None:
        """What the flags say of each row; None where they say nothing. Raises UsageError and StorageError."""
        if self.column is not None and self.template is not None:
            raise UsageError(
                f"--column {self.column} and --template {self.template} both say what is asked; leave one out, a "
                f"template has the column as {{{{ {self.column} }}}}"
            )
        if self.system is not None and not self.chat:
            raise UsageError("--system is a message of a conversation; give --chat with it, or write it in a template")
        if self.template is not None:
            template = late("jobs.rows.prompt_template").read_template(str(self.template))
            return PromptForm(render=template.render, needs=template.needs, chat=self.chat, system=self.system)
        if self.column is None and not self.chat:
            return None
        return PromptForm(self.column or DEFAULT_COLUMN, chat=self.chat, system=self.system)
