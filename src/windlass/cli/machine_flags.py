"""The flags that name a machine other than this one, or change what is known of one."""

from dataclasses import dataclass
from typing import Annotated

import typer

from windlass.facts.catalogue import CPU, catalogue

_PANEL = "Machine"


@dataclass(frozen=True, slots=True)
class MachineFlags:
    """`machine_named` takes them, once `disk_rate` has been read by `parse_rate`."""

    machine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"A known device beside this host ({', '.join((CPU, *catalogue()))}), or the file of a profile.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None
    bus: Annotated[
        str | None,
        typer.Option(
            metavar="BUS",
            help="What joins that device to the host: pcie3x16, pcie4x8 and the like, or a rate as 25GB/s.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None
    disk_rate: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help="What the disk reads, as 3.2GB/s, in place of what was measured.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None
