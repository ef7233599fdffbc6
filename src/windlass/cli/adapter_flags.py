"""What `windlass cost train --adapter` takes beside the flags of a training run."""

from dataclasses import dataclass
from typing import Annotated

import typer

from windlass.cli.numbers import counting
from windlass.errors import UsageError
from windlass.facts.weight_formats import SMALLER_FORMATS

_PANEL = "Fine-tuning by adapter"
RANK, LENGTH, MEMORY = 16, 1024, "128GiB"


@dataclass(frozen=True, slots=True)
class AdapterFlags:
    """None where nothing was said, so that a flag without --adapter is told of."""

    adapter: Annotated[
        bool,
        typer.Option(
            "--adapter", rich_help_panel=_PANEL,
            help="A LoRA adapter of MODEL (a folder, a hub id or a shape) on one card. Windlass does not train yet: "
            "a forecast.",
        ),
    ] = False  # fmt: skip
    rank: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help=f"Rank of the adapter; {RANK} by default.", rich_help_panel=_PANEL
        ),
    ] = None
    seq_len: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help=f"Tokens of a sequence; {LENGTH} by default.", rich_help_panel=_PANEL
        ),
    ] = None
    host_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help=f"Memory of the machine beside the card; {MEMORY} by default.", rich_help_panel=_PANEL
        ),
    ] = None
    allow: Annotated[
        str | None,
        typer.Option(
            metavar="FORMATS", help=f"Smaller frozen weights: {', '.join(SMALLER_FORMATS)}.", rich_help_panel=_PANEL
        ),
    ] = None
    rent: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The rented card to compare with; h100 by default.", rich_help_panel=_PANEL
        ),
    ] = None  # fmt: skip

    def __post_init__(self) -> None:
        """Raises UsageError for a flag of adapters where none is asked for."""
        given = {
            "--rank": self.rank, "--seq-len": self.seq_len, "--host-memory": self.host_memory, "--allow": self.allow,
            "--rent": self.rent,
        }  # fmt: skip
        for flag, value in given.items():
            if value is not None and not self.adapter:
                raise UsageError(f"{flag} {value} has no effect without --adapter; add that, or leave it out")
