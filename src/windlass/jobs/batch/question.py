"""Makes a question of a row, by the tokenizer and the limits of the model that is to answer it."""

from dataclasses import replace
from typing import Any

from windlass.errors import RequestError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.echo import Echo
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.batch.answerer import Answerer
from windlass.jobs.batch.ask import Question
from windlass.model.chat_prompt import chat_ids


def question(answerer: Answerer, row: BatchRow, defaults: SamplingParams) -> Question | BadRow:
    """A row ready to be asked, or a bad row that says why this model cannot answer it."""
    try:
        tokens = _prompt_token_ids(answerer, row)
        row = _echoing(answerer, row, tokens)
        sampling: dict[str, Any] = dict(row.body.sampling)  # checked when the row was read
        params = replace(defaults, **sampling)
        answerer.check(params)
        limit = answerer.max_model_len
        _check_length(limit, len(tokens), row.body.sampling.get("max_tokens", 1))
        cut = params.max_tokens is not None and len(tokens) + params.max_tokens > limit
        return Question(row, tokens, replace(params, max_tokens=limit - len(tokens)) if cut else params, cut)
    except UsageError as error:
        return BadRow(row.line, row.custom_id, str(error))


def _echoing(answerer: Answerer, row: BatchRow, tokens: tuple[int, ...]) -> BatchRow:
    """The row with the text of its prompt, where its answer repeats that."""
    if not row.body.echo or not tokens:
        return row
    text = row.body.prompt
    if text is None:
        text = answerer.tokenizer.decode(tokens, skip_special_tokens=False)
    echo = Echo(text, answerer.tokenizer.text_alone(tokens[0]) or None)
    return replace(row, body=replace(row.body, echoed=echo))


def _prompt_token_ids(answerer: Answerer, row: BatchRow) -> tuple[int, ...]:
    body = row.body
    if body.messages is not None:
        return tuple(chat_ids(answerer.tokenizer, body.messages))
    if body.prompt is not None:
        return tuple(answerer.tokenizer.encode(body.prompt))
    assert body.prompt_token_ids is not None
    for token in body.prompt_token_ids:
        if not 0 <= token < answerer.vocab_size:
            raise RequestError(f"prompt holds token id {token}; the model has ids from 0 to {answerer.vocab_size - 1}")
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
