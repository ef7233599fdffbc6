"""A job's own engine: requests are drawn as places fall free, and outputs come as they finish."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from windlass.engine.llm import LLM
from windlass.facts.completion import RequestOutput
from windlass.facts.plan import Plan
from windlass.facts.request import Request
from windlass.facts.run_report import RunReport
from windlass.facts.workload import Workload
from windlass.jobs.batch.ask import Ask
from windlass.jobs.batch.llm_answerer import LLMAnswerer


class EngineCall(LLMAnswerer):
    """The Answerer that an LLM is to a job which has it to itself; whoever opened the LLM closes it."""

    def __init__(self, llm: LLM) -> None:
        super().__init__(llm)
        self._plan: Plan | None = None
        self._broke_off = False

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence."""
        length: int = self._llm.opened.facts.max_model_len
        return length

    @property
    def report(self) -> RunReport:
        """What was measured so far."""
        return self._llm.report

    def make_ready(self, workload: Workload) -> Sequence[str]:
        """Plans for the workload and loads the model; the lines of the plan. Raises BudgetError, StorageError."""
        if self._broke_off:
            self._llm.adopt(self._llm.plan_for(workload))
        self._plan = self._llm.prepare(workload)
        return self._plan.lines()

    def broken_off(self) -> None:
        """The model is to be loaded again, by the plan it had.

        A process that has run holds a little more than one that has not: planned anew, it might not fit any more.
        """
        self._broke_off = True
        if self._plan is not None:
            self._llm.adopt(self._plan)

    def answered(
        self, asks: Iterable[Ask], workload: Workload, stream: bool, until: Callable[[], bool]
    ) -> Iterator[tuple[int, RequestOutput]]:
        """Number and output of each row, see Answerer; the engine seeds a request that has no seed by its number."""
        for output in self._llm.answer(map(_request, asks), workload, stream=stream, until=until):
            yield int(output.request_id), output


def _request(ask: Ask) -> Request:
    question = ask.question
    return Request(str(ask.number), None, question.prompt_token_ids, question.params, ask.begun)
