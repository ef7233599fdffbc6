"""The flags that say how a batch job is kept, ordered and ended."""

from dataclasses import dataclass
from typing import Annotated

import typer

from windlass.cli.numbers import counting, whole
from windlass.errors import UsageError
from windlass.facts.job_settings import ORDERS, JobSettings

_PANEL = "Job"


@dataclass(frozen=True, slots=True)
class JobFlags:
    """As the fields of JobSettings, and what happens to what is there."""

    order: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Of the answers: as the input, or finished (as they end).", rich_help_panel=_PANEL
        ),
    ] = JobSettings().order
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            parser=counting,
            metavar="N",
            help="Keep an answer in progress every N tokens, so that a job which was killed goes on inside it; rows "
            "that want logprobs begin again.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    max_errors: Annotated[
        int | None,
        typer.Option(
            parser=whole, metavar="N", help="Stop when more rows than N have an error.", rich_help_panel=_PANEL
        ),
    ] = None
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Forget what was answered and begin the job anew.", rich_help_panel=_PANEL),
    ] = False
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a file that is there. A job that was stopped goes on all the same; see --restart.",
            rich_help_panel=_PANEL,
        ),
    ] = False

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.order not in ORDERS:
            raise UsageError(f"--order {self.order!r} is no order; write {' or '.join(ORDERS)}")
        if self.max_errors is not None and self.max_errors < 0:
            raise UsageError(f"--max-errors {self.max_errors} is below 0, which is none at all; write 0 or more")

    @property
    def settings(self) -> JobSettings:
        """For the job."""
        return JobSettings(self.order, self.checkpoint_every, self.max_errors)
