"""`/v1/completions`."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.responses import Response

from windlass.facts.completion import RequestOutput
from windlass.facts.echo import Echo
from windlass.jobs.service.question import Question
from windlass.server.completions.answer import Completion, CompletionWriter
from windlass.server.completions.body import CompletionBody
from windlass.server.errors.api_error import bad_request
from windlass.server.errors.error_body import ASKING
from windlass.server.questions.answering import STREAMED, answered
from windlass.server.questions.asking import Asking
from windlass.server.questions.event_stream import lean
from windlass.server.questions.sampling_body import applied
from windlass.server.questions.structured import form_field, structured_fields
from windlass.server.questions.usage import usage_of
from windlass.server.served import Served


@dataclass(frozen=True, slots=True)
class _Asked:
    """A body as the service takes it. `echoes` is empty where no prompt is repeated."""

    questions: list[Question]
    echoes: list[Echo]


def completion_routes(served: Served) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["ask"])

    @router.post("/v1/completions", response_model=None, responses=ASKING | {200: {"model": Completion, **STREAMED}})
    async def complete(body: CompletionBody, request: Request) -> Response:
        """Goes on from prompts: texts or token ids, one or several."""
        served.check_model(body.model)
        body.check()
        asked = await served.read(partial(_read, served, body))
        asking = Asking(served.service, asked.questions, served.waits, served.limits.keep_alive, form_field(body))
        head = Completion(id=f"cmpl-{uuid4().hex}", created=int(time.time()), model=served.model, choices=[])
        writer = CompletionWriter(body, asked.echoes)

        def whole(outputs: list[RequestOutput]) -> dict[str, Any]:
            choices = [choice for number, output in enumerate(outputs) for choice in writer.pieces(number, output)]
            usage = usage_of(outputs, body.scores_only)
            return lean(head.model_copy(update={"choices": choices, "usage": usage}), "token_ids")

        pieces = _pieces(asking, writer, head, body) if body.stream else None
        return await answered(request, asking, pieces, whole)

    return router


async def _pieces(
    asking: Asking, writer: CompletionWriter, head: Completion, body: CompletionBody
) -> AsyncIterator[dict[str, Any] | None]:
    last: dict[int, RequestOutput] = {}
    async for item in asking.outputs():
        if item is None:
            yield None
            continue
        number, output = item
        last[number] = output
        for choice in writer.pieces(number, output):
            yield lean(head.model_copy(update={"choices": [choice]}), "token_ids", "usage")
    if body.wants_usage:
        usage = usage_of(last.values(), body.scores_only)
        yield lean(head.model_copy(update={"usage": usage}))


def _read(served: Served, body: CompletionBody) -> _Asked:
    """Raises ApiError, and RequestError for text that is none."""
    params = applied(served.defaults, body.given() | structured_fields(body))
    questions, echoes = list[Question](), list[Echo]()
    for place, prompt in enumerate(body.prompts):
        param = f"prompt[{place}]" if len(body.prompts) > 1 else "prompt"
        if isinstance(prompt, str):
            served.check_text(param, prompt)
        ids = tuple(served.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
        worst = max(ids, default=0)
        if worst >= served.vocab_size:
            raise bad_request(f"{param} holds token id {worst}; ids go from 0 to {served.vocab_size - 1}", param)
        served.check_length(param, len(ids), body.max_tokens)
        questions.append(Question(ids, params))
        if body.echo:
            text = prompt if isinstance(prompt, str) else served.tokenizer.decode(ids, skip_special_tokens=False)
            echoes.append(Echo(text, served.tokenizer.text_alone(ids[0]) or None))
    return _Asked(questions, echoes)
