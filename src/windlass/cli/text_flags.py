"""The flags that say how a text is cut into windows, and which of its tokens are scored."""

from dataclasses import dataclass
from typing import Annotated

import typer

from windlass.cli.numbers import counting
from windlass.facts.text_window import CONVENTIONS, TRANSFORMERS, Windowing

_PANEL = "Text"


@dataclass(frozen=True, slots=True)
class TextFlags:
    """As the fields of Windowing."""

    context: Annotated[
        int | None,
        typer.Option(
            parser=counting,
            metavar="N",
            help="Tokens of a window; 2048, or all that the model takes, by default (512 for llama.cpp).",
            rich_help_panel=_PANEL,
        ),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(
            parser=counting,
            metavar="N",
            help="Tokens from one window to the next, --context by default; below that each token is scored once, "
            "behind others of its window.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    convention: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Whose figures to compare with, {' or '.join(CONVENTIONS)}: which tokens are scored differs.",
            rich_help_panel=_PANEL,
        ),
    ] = TRANSFORMERS
    windows: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help="Only the first windows; all by default.", rich_help_panel=_PANEL
        ),
    ] = None

    @property
    def windowing(self) -> Windowing:
        """Raises UsageError for what makes no windows."""
        return Windowing(self.convention, self.context, self.stride, self.windows)
