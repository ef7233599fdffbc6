"""How a job asks the engine: requests are drawn as places fall free, and outputs come as they finish."""

from collections.abc import Callable, Iterable, Iterator

from windlass.engine.llm import LLM
from windlass.facts.completion import RequestOutput
from windlass.facts.request import Request
from windlass.facts.workload import Workload
from windlass.jobs.batch.intake import Ask


def answered(
    llm: LLM, asks: Iterable[Ask], workload: Workload, stream: bool, until: Callable[[], bool]
) -> Iterator[tuple[int, RequestOutput]]:
    """Number and output of each row as it finishes, with `stream` of every row after each pass.

    `until` is asked after each pass and ends it. A row without a seed is seeded by its number, the same at every start.
    """
    for output in llm.answer(map(_request, asks), workload, stream=stream, until=until):
        yield int(output.request_id), output


def _request(ask: Ask) -> Request:
    question = ask.question
    return Request(str(ask.number), None, question.prompt_token_ids, question.params, ask.begun)
