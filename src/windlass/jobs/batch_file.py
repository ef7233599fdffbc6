"""Answers the rows of a batch, writing them in the order of the questions; a bad row costs only itself."""

import time
from collections.abc import Iterator, Mapping, Sequence

from windlass.engine.llm import LLM
from windlass.facts.batch_answer import answer, refusal
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.completion import RequestOutput
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.answer_file import AnswerFile
from windlass.jobs.batch.ask import Question
from windlass.jobs.batch.engine_call import EngineCall
from windlass.jobs.batch.question import question

Asked = Question | BadRow


def questions(llm: LLM, rows: Sequence[BatchRow | BadRow], defaults: SamplingParams) -> list[Asked]:
    """The rows ready for the engine; one that this model cannot answer becomes a bad row that says why."""
    return [question(EngineCall(llm), row, defaults) if isinstance(row, BatchRow) else row for row in rows]


def cut_short(asked: Sequence[Asked]) -> int:
    """How many answers may not become as long as the defaults wanted, since the model has no room for it."""
    return sum(item.cut for item in asked if isinstance(item, Question))


def workload(asked: Sequence[Asked], max_model_len: int) -> Workload | None:
    """What the engine should plan for; None when there is no question."""
    good = [item for item in asked if isinstance(item, Question)]
    if not good:
        return None
    longest = max(len(item.prompt_token_ids) for item in good)
    gen_len = max(item.params.max_tokens or max_model_len - len(item.prompt_token_ids) for item in good)
    scored = any(item.params.prompt_logprobs is not None for item in good)
    return Workload(sum(item.params.n for item in good), longest, min(gen_len, max_model_len - longest), scored=scored)


def answer_questions(llm: LLM, model: str, asked: Sequence[Asked], answers: AnswerFile) -> BatchSummary:
    """Writes a row for every item, as soon as it and all before it are answered; `model` is what the answers name.

    When it is interrupted, answers that waited for an earlier one are written too, so that none is lost. Raises
    StorageError when the disk is full; the rows written till then are whole.
    """
    created = int(time.time())
    ready: dict[int, Mapping[str, object]] = {
        position: refusal(bad) for position, bad in enumerate(asked) if isinstance(bad, BadRow)
    }
    try:
        answers.append(_in_order(ready, answers.safe_rows))
        for position, row, output in _finished(llm, asked):
            ready[position] = answer(row, output, model, created)
            answers.append(_in_order(ready, answers.safe_rows))
    finally:
        answers.append([ready.pop(position) for position in sorted(ready)])
    refused = tuple(bad.line for bad in asked if isinstance(bad, BadRow))
    return BatchSummary(len(asked), refused, llm.report if len(refused) < len(asked) else None)


def _finished(llm: LLM, asked: Sequence[Asked]) -> Iterator[tuple[int, BatchRow, RequestOutput]]:
    """Position, row and answer of each question, as the engine finishes them.

    The engine numbers the requests of a call in their order and speaks of the first one first.
    """
    good = [(position, item) for position, item in enumerate(asked) if isinstance(item, Question)]
    prompts = [{"prompt_token_ids": list(item.prompt_token_ids)} for _, item in good]
    first: int | None = None
    for output in llm.stream(prompts, [item.params for _, item in good]) if good else ():
        first = int(output.request_id) if first is None else first
        if output.finished:
            position, item = good[int(output.request_id) - first]
            yield position, item.row, output


def _in_order(ready: dict[int, Mapping[str, object]], start: int) -> list[Mapping[str, object]]:
    """Takes the rows from `start` on up to the first that is not ready."""
    end = start
    while end in ready:
        end += 1
    return [ready.pop(position) for position in range(start, end)]
