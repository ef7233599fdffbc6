"""Answers the rows of a batch, writing them in the order of the questions; a bad row costs only itself."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windlass.engine.llm import LLM
from windlass.errors import RequestError, UsageError
from windlass.facts.batch_answer import answer, refusal
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.completion import RequestOutput
from windlass.facts.echo import Echo
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.answer_file import AnswerFile


@dataclass(frozen=True, slots=True)
class Question:
    """A good row as the engine takes it: token ids, and the row's own parameters over the defaults.

    `cut`: the defaults asked for a longer answer than the model has room for.
    """

    row: BatchRow
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    cut: bool = False


Asked = Question | BadRow


def questions(llm: LLM, rows: Sequence[BatchRow | BadRow], defaults: SamplingParams) -> list[Asked]:
    """The rows ready for the engine; one that this model cannot answer becomes a bad row that says why."""
    return [question(llm, row, defaults) if isinstance(row, BatchRow) else row for row in rows]


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


def question(llm: LLM, row: BatchRow, defaults: SamplingParams) -> Asked:
    """A row ready for the engine, or a bad row that says why this model cannot answer it."""
    try:
        tokens = _prompt_token_ids(llm, row)
        row = _echoing(llm, row, tokens)
        sampling: dict[str, Any] = dict(row.body.sampling)  # checked when the row was read
        params = replace(defaults, **sampling)
        llm.check(params)
        limit = llm.opened.facts.max_model_len
        _check_length(limit, len(tokens), row.body.sampling.get("max_tokens", 1))
        cut = params.max_tokens is not None and len(tokens) + params.max_tokens > limit
        return Question(row, tokens, replace(params, max_tokens=limit - len(tokens)) if cut else params, cut)
    except UsageError as error:
        return BadRow(row.line, row.custom_id, str(error))


def _echoing(llm: LLM, row: BatchRow, tokens: tuple[int, ...]) -> BatchRow:
    """The row with the text of its prompt, where its answer repeats that."""
    if not row.body.echo or not tokens:
        return row
    text = row.body.prompt
    if text is None:
        text = llm.tokenizer.decode(tokens, skip_special_tokens=False)
    echo = Echo(text, llm.tokenizer.text_alone(tokens[0]) or None)
    return replace(row, body=replace(row.body, echoed=echo))


def _prompt_token_ids(llm: LLM, row: BatchRow) -> tuple[int, ...]:
    body = row.body
    if body.messages is not None:
        return tuple(llm.tokenizer.apply_chat_template(body.messages))
    if body.prompt is not None:
        return tuple(llm.tokenizer.encode(body.prompt))
    assert body.prompt_token_ids is not None
    vocab_size = llm.opened.facts.vocab_size
    for token in body.prompt_token_ids:
        if not 0 <= token < vocab_size:
            raise RequestError(f"prompt holds token id {token}; the model has ids from 0 to {vocab_size - 1}")
    return body.prompt_token_ids


def _check_length(max_model_len: int, prompt_len: int, wanted: object) -> None:
    """What the row itself asks for must fit; a length it leaves open is cut to what is left instead."""
    assert isinstance(wanted, int)
    if not prompt_len:
        raise RequestError("the prompt has 0 tokens; write at least one character")
    if prompt_len + wanted > max_model_len:
        raise RequestError(
            f"a prompt of {prompt_len} tokens and {wanted} to generate exceed the model's {max_model_len}; "
            f"shorten the prompt or lower max_tokens"
        )


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
