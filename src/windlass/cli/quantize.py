"""`windlass quantize`: a model in 4 or 8 bits a weight, written once and run as it is."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.display import display
from windlass.cli.exits import INTERRUPTED
from windlass.cli.late import late
from windlass.cli.output_flags import OutputFlags
from windlass.errors import UsageError
from windlass.facts.choices import check_packing

EXAMPLES = (
    "windlass quantize ./model --to int4 -o ./model-int4",
    "windlass quantize org/name --to int8 -o ./name-int8 --json",
    "windlass quantize ./model --to int4 -o ./model-int4 --calibrate book.txt",
    "windlass quantize ./model --to int4 -o ./model-int4 --self-calibrate",
)


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder or a Hugging Face id.", show_default=False)],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="int4 (4.5 bits a weight) or int8 (8.5).")],
    target: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder for the model.")],
    output: OutputFlags,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A text, or a .jsonl of prompts, that the model reads first, to keep best what matters for it.",
        ),
    ] = None,
    self_calibrate: Annotated[
        bool,
        typer.Option("--self-calibrate", help="The same without a file: the model first writes a text by itself."),
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a Hugging Face id.")
    ] = None,
) -> None:
    """Pack a model's weights, in one pass and little memory.

    Matrices of the layers are packed; embedding, head, norms and routers stay as they are. A job that was stopped goes
    on where it was when the same command is given again.
    """
    check_packing(to)
    if calibrate is not None and self_calibrate:
        raise UsageError(f"--calibrate {calibrate} and --self-calibrate are two calibrations; leave one out")
    with display(output.quiet) as screen:
        try:
            folder = late("model.hub").model_folder(model, revision, screen.on_progress)
            late("engine.packing.runnable").check_runnable(folder)
            calibration = None
            if calibrate is not None:
                by = late("jobs.calibration").calibration_by
                calibration = by(calibrate, folder, screen.on_progress, lambda line: screen.say([line]))
            elif self_calibrate:
                by = late("jobs.calibration").calibration_by_itself
                calibration = by(folder, screen.on_progress, lambda line: screen.say([line]))
            result = late("engine.packing.pack").quantize(folder, target, to, screen.on_progress, calibration)
        except KeyboardInterrupt as interrupt:
            screen.close()
            sys.stderr.write("interrupted: the same command goes on where it was\n")
            raise typer.Exit(INTERRUPTED) from interrupt
        screen.close()
        screen.say(result.lines())
    if output.json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
