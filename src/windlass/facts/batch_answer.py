"""The line that answers a batch row, in OpenAI's form: a completion, a chat completion or an error."""

from dataclasses import replace

from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.facts.logprob_forms import chat_logprobs, completion_logprobs

Json = dict[str, object]


def answer(row: BatchRow, output: RequestOutput, model: str, created: int) -> Json:
    """What was generated for `row`. `created` is in seconds since 1970."""
    if row.body.scores_only:
        output = replace(output, outputs=tuple(_undrawn(choice) for choice in output.outputs))
    body = _completion_body(row, output) if row.body.messages is None else _chat_body(row, output)
    generated = sum(len(choice.token_ids) for choice in output.outputs)
    body |= {
        "created": created,
        "model": model,
        "usage": {
            "prompt_tokens": len(output.prompt_token_ids),
            "completion_tokens": generated,
            "total_tokens": len(output.prompt_token_ids) + generated,
        },
    }
    response = {"status_code": 200, "request_id": f"req_{row.line:06d}", "body": body}
    return _line(row.line, row.custom_id, response, None)


def refusal(row: BadRow) -> Json:
    """The reason why a line was not answered, with its number."""
    error: Json = {"code": "invalid_request", "message": f"line {row.line}: {row.reason}", "line": row.line}
    return _line(row.line, row.custom_id, None, error)


def _line(line: int, custom_id: str | None, response: Json | None, error: Json | None) -> Json:
    return {"id": f"batch_req_{line:06d}", "custom_id": custom_id, "response": response, "error": error}


def _completion_body(row: BatchRow, output: RequestOutput) -> Json:
    before = row.body.echoed.text if row.body.echoed is not None else ""
    choices = [
        _choice(row, choice) | {"text": before + choice.text, "logprobs": _completion_logprobs(row, output, choice)}
        for choice in output.outputs
    ]
    return {"id": f"cmpl-{row.line:06d}", "object": "text_completion", "choices": choices}


def _chat_body(row: BatchRow, output: RequestOutput) -> Json:
    choices = [
        _choice(row, choice)
        | {
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": _chat_logprobs(row, choice),
        }
        for choice in output.outputs
    ]
    return {"id": f"chatcmpl-{row.line:06d}", "object": "chat.completion", "choices": choices}


def _choice(row: BatchRow, choice: CompletionOutput) -> Json:
    """What both forms have. `token_ids` is there for those who ask with `return_token_ids`, as in vLLM."""
    given: Json = {"index": choice.index, "finish_reason": choice.finish_reason}
    return given | {"token_ids": list(choice.token_ids)} if row.body.return_token_ids else given


def _undrawn(choice: CompletionOutput) -> CompletionOutput:
    """Without the token that nobody asked for."""
    logprobs = None if choice.logprobs is None else ()
    return replace(choice, text="", token_ids=(), logprobs=logprobs, finish_reason="length", stop_reason=None)


def _completion_logprobs(row: BatchRow, output: RequestOutput, choice: CompletionOutput) -> Json | None:
    """Of the answer's tokens; with echo of the prompt's before them, whose first one has no log probability."""
    if choice.logprobs is None:
        return None
    ids, tables = choice.token_ids, choice.logprobs
    first, offset = list[str](), 0
    if row.body.echoed is not None and output.prompt_logprobs is not None:
        first = [row.body.echoed.first_token or f"token_id:{output.prompt_token_ids[0]}"]
        offset = 0 if row.body.echoed.text.startswith(first[0]) else -len(first[0])
        ids = (*output.prompt_token_ids[1:], *ids)
        tables = (*(table for table in output.prompt_logprobs if table is not None), *tables)
    return completion_logprobs(ids, tables, first, offset)


def _chat_logprobs(row: BatchRow, choice: CompletionOutput) -> Json | None:
    if choice.logprobs is None:
        return None
    return chat_logprobs(choice.token_ids, choice.logprobs, row.body.top_logprobs)
