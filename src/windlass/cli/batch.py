"""`windlass batch`: a file of questions in, a file of answers out."""

from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.batch_job import BatchJob
from windlass.cli.batch_pipe import BatchPipe
from windlass.cli.batch_work import BatchWork
from windlass.cli.budget_flags import BudgetFlags, ModelName
from windlass.cli.job_flags import JobFlags
from windlass.cli.output_flags import OutputFlags
from windlass.cli.prompt_flags import PromptFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.cli.timeline_flags import TimelineFlags
from windlass.errors import UsageError
from windlass.jobs.answers.apart import check_apart
from windlass.jobs.rows.row_source import row_source

EXAMPLES = (
    "windlass batch ./model -i prompts.jsonl -o answers.jsonl --host-memory 4GiB",
    "windlass batch org/name -i prompts.jsonl -o answers.jsonl --max-tokens 64 --temperature 0",
    "windlass batch ./model -i reviews.csv -o answers.jsonl --template prompt.j2 --chat",
    """echo '{"prompt": "Once upon a time"}' | windlass batch ./model -i - -o - --quiet""",
)

_PANEL = "Files"


def batch(
    model: ModelName,
    source: Annotated[
        str,
        typer.Option("--input", "-i", metavar="FILE", help="Rows: .jsonl .csv .tsv .parquet", rich_help_panel=_PANEL),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Answers: .jsonl, or a folder/ of Parquet.", rich_help_panel=_PANEL
        ),
    ],
    sampling: SamplingFlags,
    output: OutputFlags,
    job: JobFlags,
    budget: BudgetFlags,
    timeline: TimelineFlags,
    prompts: PromptFlags,
) -> None:
    """Answer a file of prompts.

    Rows are OpenAI batch rows, {"prompt": ...}, or those of a table; a bad row gets an error row and the others are
    answered. Sampling flags are for what a row leaves open. A job that was stopped or killed goes on where it was when
    the same command is given again; `windlass jobs` shows how it stands. A dash in place of a file is standard input
    or output; such a batch cannot be taken up again. Exit codes: 0 done, error rows among them or not; 1 no row could
    be answered, or more than --max-errors could not; 2 misuse; 130 interrupted or cancelled.
    """
    if output.json and target == "-":
        raise UsageError("--json and -o - would both write to standard output; name a file for the answers")
    check_apart(source, target)
    timeline.check()
    rows = row_source(source, prompts.form())
    work = BatchWork(model, source, target, sampling, output, job, budget, timeline, prompts)
    if _is_piped(source, target):
        BatchPipe(work, rows).run()
    else:
        BatchJob(work, rows).run()


def _is_piped(source: str, target: str) -> bool:
    """Whether one end cannot be come back to: a pipe, a device."""
    ends = (Path(source), Path(target))
    return "-" in (source, target) or any(end.exists() and not (end.is_file() or end.is_dir()) for end in ends)
