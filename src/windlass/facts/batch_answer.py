"""The line that answers a batch row, in OpenAI's form: a completion, a chat completion or an error."""

from collections.abc import Mapping
from itertools import accumulate

from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.completion import CompletionOutput, Logprob, RequestOutput

Json = dict[str, object]


def answer(row: BatchRow, output: RequestOutput, model: str, created: int) -> Json:
    """What was generated for `row`. `created` is in seconds since 1970."""
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
    choices = [
        _choice(row, choice) | {"text": choice.text, "logprobs": _completion_logprobs(choice)}
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


def _completion_logprobs(choice: CompletionOutput) -> Json | None:
    if choice.logprobs is None:
        return None
    chosen = [_decoded(choice.token_ids[i], table) for i, table in enumerate(choice.logprobs)]
    return {
        "tokens": chosen,
        "token_logprobs": [table[choice.token_ids[i]].logprob for i, table in enumerate(choice.logprobs)],
        "top_logprobs": [
            {_decoded(token, table): table[token].logprob for token in table} for table in choice.logprobs
        ],
        "text_offset": list(accumulate(map(len, chosen), initial=0))[:-1],
    }


def _chat_logprobs(row: BatchRow, choice: CompletionOutput) -> Json | None:
    """The table of a token holds the drawn one too, which belongs among the top ones only by its rank."""
    if choice.logprobs is None:
        return None
    content = []
    for token, table in zip(choice.token_ids, choice.logprobs, strict=True):
        ranked = sorted((entry.rank, other) for other, entry in table.items() if entry.rank is not None)
        top = [other for rank, other in ranked if rank <= row.body.top_logprobs]
        content.append(_chat_logprob(token, table) | {"top_logprobs": [_chat_logprob(other, table) for other in top]})
    return {"content": content, "refusal": None}


def _chat_logprob(token: int, table: Mapping[int, Logprob]) -> Json:
    text = _decoded(token, table)
    return {"token": text, "logprob": table[token].logprob, "bytes": list(text.encode())}


def _decoded(token: int, table: Mapping[int, Logprob]) -> str:
    return table[token].decoded_token or f"token_id:{token}"
