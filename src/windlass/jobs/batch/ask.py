"""A row of a batch on its way to whoever answers it: as a question, and with what its answers had come to before."""

from dataclasses import dataclass

from windlass.facts.batch_row import BatchRow
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.batch.journal import Tokens


@dataclass(frozen=True, slots=True)
class Question:
    """A good row as the model takes it: token ids, and the row's own parameters over the defaults.

    `cut`: the defaults asked for a longer answer than the model has room for.
    """

    row: BatchRow
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to be asked now, and the tokens that its answers had come to before."""

    question: Question
    begun: Tokens = ()

    @property
    def number(self) -> int:
        """Of the row in the input."""
        return self.question.row.line
