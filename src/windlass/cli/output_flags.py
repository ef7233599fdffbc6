"""Who reads what a verb writes: people, or a machine."""

from dataclasses import dataclass
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.", rich_help_panel="Output")]


@dataclass(frozen=True, slots=True)
class OutputFlags:
    """Results go to standard output, progress and the report to standard error."""

    json: AsJson = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no report.", rich_help_panel="Output")
    ] = False
