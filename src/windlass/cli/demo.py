"""`windlass demo`: the claim of the project, shown on this machine in two minutes."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.exits import FAILED, files_removed
from windlass.cli.late import late
from windlass.cli.output_flags import AsJson
from windlass.errors import UsageError
from windlass.facts.demo_result import DemoResult
from windlass.units import format_bytes

EXAMPLES = ("windlass demo", "windlass demo --folder /mnt/nvme", "windlass demo --json")

# A module and not the script: the demonstration may run from a folder where none is installed.
_WINDLASS = (sys.executable, "-m", "windlass")


def demo(
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where 2.2 GB may be written for a while; temporary files by default.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verse from a model that does not fit, a 2 GB model in 1.2 GB, tokens checked against transformers.

    The big model has random weights, made on the spot. Takes under two minutes and no network; all files are removed
    at the end, and on Ctrl-C.
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; make it first, or name another with --folder")
    narration = sys.stderr if as_json else sys.stdout

    def say(line: str) -> None:
        print(line, file=narration, flush=True)

    def windlass(arguments: list[str]) -> str:
        # Bars belong between the lines of a terminal; JSON lines would drown them in a file.
        hush = [] if sys.stderr.isatty() else ["--quiet"]
        written: str = late("jobs.child").output_of([*_WINDLASS, *arguments, *hush])
        return written

    with files_removed(), tempfile.TemporaryDirectory(prefix="windlass-demo-", dir=folder) as below:
        result: DemoResult = late("jobs.demo").demonstrate(windlass, Path(below), say)
    say(f"{format_bytes(result.checkpoint_bytes)} removed; {_verdict(result)}")
    if as_json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
    if not result.equal:
        raise typer.Exit(FAILED)


def _verdict(result: DemoResult) -> str:
    if result.equal:
        return "every token was that of transformers"
    return "the tokens DIFFER from those of transformers, which is a bug: please report it"
