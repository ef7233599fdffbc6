"""What a person may say of a batch job beside model and sampling."""

from dataclasses import dataclass

INPUT, FINISHED = "input", "finished"
ORDERS = (INPUT, FINISHED)
"""Of the rows of an output: as those of the input, or as they were finished."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """`order` is one of ORDERS. `checkpoint_every`: tokens after which an answer in progress is kept, None for never.
    `max_errors`: rows without an answer at which the job still goes on, None for any number.
    """

    order: str = INPUT
    checkpoint_every: int | None = None
    max_errors: int | None = None
