"""What every verb of `windlass cost` takes: what is assumed otherwise, and how the answer is shown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.output_flags import AsJson

_ASSUMED, _SHOWN = "Assumptions", "Output"


@dataclass(frozen=True, slots=True)
class CostFlags:
    """Every assumption has a name, which --explain shows."""

    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another value; may be repeated.", rich_help_panel=_ASSUMED),
    ] = None
    assumptions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Assumptions of your own: JSON, a list of name, value, unit, source, date, low, high.",
            rich_help_panel=_ASSUMED,
        ),
    ] = None  # fmt: skip
    explain: Annotated[
        bool, typer.Option("--explain", help="The arithmetic line by line, with sources.", rich_help_panel=_SHOWN)
    ] = False
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A picture, in the format of its name.", rich_help_panel=_SHOWN),
    ] = None
    json: AsJson = False
