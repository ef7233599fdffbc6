"""`windlass jobs`: the batch jobs of this machine, how they stand, and how to end one."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from windlass.cli.output_flags import AsJson
from windlass.jobs.batch.registry import GONE, Registry, call_off
from windlass.settings import cache_folder

EXAMPLES = (
    "windlass jobs",
    "windlass jobs --json",
    "windlass jobs --prune",
    "windlass jobs show 3fa9c1",
    "windlass jobs cancel answers.jsonl",
)

JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Its id or how that begins, as `windlass jobs` shows it, or its output.")
]

_HEADER = ("id", "state", "rows", "errors", "speed", "time left", "output")


def jobs(
    context: typer.Context,
    as_json: AsJson = False,
    prune: Annotated[bool, typer.Option("--prune", help="Forget the jobs whose journals are gone.")] = False,
) -> None:
    """List the batch jobs of this machine, the latest first."""
    if context.invoked_subcommand is not None:
        return
    registry = Registry(cache_folder())
    if prune:
        registry.prune()
    views = registry.views()
    if as_json:
        sys.stdout.write(json.dumps([view.as_dict() for view in views]) + "\n")
    elif not views:
        sys.stdout.write("no jobs yet; `windlass batch MODEL -i prompts.jsonl -o answers.jsonl` begins one\n")
    else:
        sys.stdout.write(_table([_HEADER, *(view.cells for view in views)]))
        if any(view.state == GONE for view in views):
            sys.stderr.write("jobs that are gone have no journal any more; `windlass jobs --prune` forgets them\n")


def show(job: JobId, as_json: AsJson = False) -> None:
    """Show how a batch job stands, and the command that goes on with it."""
    view = Registry(cache_folder()).view(job)
    sys.stdout.write(json.dumps(view.as_dict()) + "\n" if as_json else "\n".join(view.lines()) + "\n")


def cancel(job: JobId) -> None:
    """End a batch job: one that is running stops after its pass. What was answered stays."""
    view = Registry(cache_folder()).view(job)
    if call_off(view):
        sys.stdout.write(f"job {view.record.id}: process {view.pid} ends it after the pass in flight\n")
    else:
        sys.stdout.write(f"job {view.record.id} is cancelled; its command takes it up again: {view.record.command}\n")


VERBS = (
    (show, EXAMPLES[3:4]),
    (cancel, EXAMPLES[4:]),
)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"
