"""`windlass doctor`: what this machine has and how fast it is."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.late import late
from windlass.cli.output_flags import AsJson

EXAMPLES = ("windlass doctor", "windlass doctor ./model --offload-dir /mnt/nvme", "windlass doctor --json")


def doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Whose disk to measure: a model's, else that of temporary files.", show_default=False
        ),
    ] = None,
    offload_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Measure this disk too.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this machine has and how fast its disks read."""
    folders = [folder or Path(tempfile.gettempdir())] + ([offload_dir] if offload_dir else [])
    found = late("jobs.checkup").checkup(folders)
    sys.stdout.write(json.dumps(found.as_dict()) + "\n" if as_json else "\n".join(found.lines()) + "\n")
