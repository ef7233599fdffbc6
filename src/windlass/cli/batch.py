"""`windlass batch`: a file of questions in, a file of answers out."""

import json
import sys
from typing import Annotated, Any

import typer

from windlass.cli.budget_flags import BudgetFlags, ModelName
from windlass.cli.display import Display, display
from windlass.cli.exits import FAILED, INTERRUPTED
from windlass.cli.late import late
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.prompt_flags import PromptFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.cli.timeline_flags import TimelineFlags
from windlass.errors import UsageError
from windlass.facts.batch_answer import refusal
from windlass.facts.batch_row import BadRow
from windlass.facts.batch_summary import BatchSummary
from windlass.jobs.answer_file import AnswerFile, check_apart
from windlass.jobs.question_file import Row, read_rows

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
        str, typer.Option("--output", "-o", metavar="FILE", help="Answers, in the same order.", rich_help_panel=_PANEL)
    ],
    sampling: SamplingFlags,
    output: OutputFlags,
    budget: BudgetFlags,
    timeline: TimelineFlags,
    prompts: PromptFlags,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.", rich_help_panel=_PANEL)
    ] = False,
) -> None:
    """Answer a file of prompts.

    Rows are OpenAI batch rows, {"prompt": ...}, or those of a table; a bad row gets an error row and the others are
    answered. Sampling flags are for what a row leaves open. A dash in place of a file is standard input or output.
    """
    if output.json and target == "-":
        raise UsageError("--json and -o - would both write to standard output; name a file for the answers")
    check_apart(source, target)
    timeline.check()
    rows = read_rows(source, prompts.form())
    with AnswerFile(target, overwrite) as answers, display(output.quiet) as screen:
        try:
            with timeline.recording(model, screen) as trace:
                summary = _answered(model, rows, answers, screen, sampling, budget, trace)
        except KeyboardInterrupt as interrupt:
            screen.close()
            sys.stderr.write(f"interrupted: {answers.safe_rows} of {len(rows)} rows are in {target}\n")
            raise typer.Exit(INTERRUPTED) from interrupt
        screen.close()
        screen.say(summary.lines())
    if output.json:
        sys.stdout.write(json.dumps({"model": model, "output": target} | summary.as_dict()) + "\n")
    if not summary.answered:
        raise typer.Exit(FAILED)


def _answered(
    model: str,
    rows: list[Row],
    answers: AnswerFile,
    screen: Display,
    sampling: SamplingFlags,
    budget: BudgetFlags,
    trace: Any,
) -> BatchSummary:
    """Runs the batch; a file without one good row needs no model."""
    bad = [row for row in rows if isinstance(row, BadRow)]
    if len(bad) == len(rows):
        answers.append([refusal(row) for row in bad])
        return BatchSummary(len(rows), tuple(row.line for row in bad), None)
    job = late("jobs.batch_file")
    with opened(model, budget, screen.on_progress, trace) as llm:
        asked = job.questions(llm, rows, sampling.applied_to(llm.default_sampling_params))
        cut = job.cut_short(asked) if sampling.asks_for_length else 0
        if cut:
            sys.stderr.write(
                f"warning: --max-tokens {sampling.max_tokens} is more than {cut} of {len(rows)} prompts leave of the "
                f"{llm.opened.facts.max_model_len} tokens this model takes; their answers end there at the latest\n"
            )
        workload = job.workload(asked, llm.opened.facts.max_model_len)
        if workload is not None:
            screen.say(llm.prepare(workload).lines())
        summary: BatchSummary = job.answer_questions(llm, model, asked, answers)
        return summary
