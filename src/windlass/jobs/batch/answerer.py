"""What answers the rows of a job: an engine of the job's own, or one that answers others beside it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from windlass.facts.completion import RequestOutput
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.batch.ask import Ask
from windlass.model.tokenizer import AnyTokenizer


class Answerer(Protocol):
    """One model, ready for any number of calls one after the other."""

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence, prompt and answer together."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids of a prompt are below it."""
        ...

    @property
    def tokenizer(self) -> AnyTokenizer:
        """The model's, with its chat template."""
        ...

    @property
    def report(self) -> RunReport | None:
        """What was measured so far; None where it would be that of others too."""
        ...

    def check(self, sampling_params: SamplingParams) -> None:
        """Raises UsageError for parameters that make no sense for this model."""
        ...

    def make_ready(self, workload: Workload) -> Sequence[str]:
        """Has room for the workload, the model loaded; what a person may want to know of that, a line each.

        Raises BudgetError where there can be no room, StorageError where the model cannot be read.
        """
        ...

    def broken_off(self) -> None:
        """A call or `make_ready` raised StorageError, and the next one is to begin afresh, with the room there was."""
        ...

    def answered(
        self, asks: Iterable[Ask], workload: Workload, stream: bool, until: Callable[[], bool]
    ) -> Iterator[tuple[int, RequestOutput]]:
        """Number and output of each row as it finishes, with `stream` of every row after each pass.

        `asks` is asked for the next one when it can be begun; `until` after each pass, which it ends. A row without a
        seed is seeded by its number, the same at every start. Raises StorageError.
        """
        ...
