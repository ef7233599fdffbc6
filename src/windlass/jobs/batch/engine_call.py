"""How a job asks the engine: requests are drawn as they are wanted, and outputs come as they finish."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from windlass.engine.llm import LLM
from windlass.facts.completion import RequestOutput
from windlass.facts.workload import Workload
from windlass.jobs.batch.intake import Ask


def answered(
    llm: LLM, asks: Iterable[Ask], workload: Workload, seed: int, stream: bool, until: Callable[[], bool]
) -> Iterator[tuple[int, RequestOutput]]:
    """Number and output of each row as it finishes, with `stream` of every row after each pass.

    `until` is asked after each pass and ends it.
    """
    drawn = list(asks)
    if not drawn:
        return
    params = [_seeded(ask, seed) for ask in drawn]
    prompts = [{"prompt_token_ids": list(ask.question.prompt_token_ids)} for ask in drawn]
    first: int | None = None
    for output in llm.stream(prompts, params):
        first = int(output.request_id) if first is None else first
        if stream or output.finished:
            yield drawn[int(output.request_id) - first].number, output
            if until():
                return


def _seeded(ask: Ask, seed: int) -> object:
    params = ask.question.params
    return params if params.seed is not None else replace(params, seed=seed + ask.number)
