"""`/v1/chat/completions`."""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.responses import Response

from windlass.facts.completion import RequestOutput
from windlass.jobs.service.question import Question
from windlass.server.chats.answer import ChatChunk, ChatCompletion, ChatPiece, ChatWriter
from windlass.server.chats.body import ChatBody
from windlass.server.errors.api_error import bad_request
from windlass.server.errors.error_body import ASKING
from windlass.server.questions.answering import STREAMED, answered
from windlass.server.questions.asking import Asking
from windlass.server.questions.event_stream import lean
from windlass.server.questions.sampling_body import applied
from windlass.server.questions.structured import form_field, structured_fields
from windlass.server.questions.usage import usage_of
from windlass.server.served import Served

# Fields that are left out where they hold nothing; the others are null then, as clients expect.
_OPTIONAL = ("token_ids", "tool_calls")
_OPTIONAL_IN_PIECES = (*_OPTIONAL, "role", "content", "usage")


def chat_routes(served: Served) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["ask"])

    @router.post(
        "/v1/chat/completions", response_model=None, responses=ASKING | {200: {"model": ChatCompletion, **STREAMED}}
    )
    async def chat(body: ChatBody, request: Request) -> Response:
        """Goes on with a conversation, by the model's own chat template."""
        served.check_model(body.model)
        body.check()
        question = await served.read(partial(_read, served, body))
        asking = Asking(served.service, [question], served.waits, served.limits.keep_alive, form_field(body))
        name, created = f"chatcmpl-{uuid4().hex}", int(time.time())
        writer = ChatWriter(body)

        def whole(outputs: list[RequestOutput]) -> dict[str, Any]:
            [output] = outputs
            choices, usage = writer.choices(output), usage_of(outputs)
            answer = ChatCompletion(id=name, created=created, model=served.model, choices=choices, usage=usage)
            return lean(answer, *_OPTIONAL)

        head = ChatChunk(id=name, created=created, model=served.model, choices=[])
        pieces = _pieces(asking, writer, head, body) if body.stream else None
        return await answered(request, asking, pieces, whole)

    return router


async def _pieces(
    asking: Asking, writer: ChatWriter, head: ChatChunk, body: ChatBody
) -> AsyncIterator[dict[str, Any] | None]:
    def chunk(piece: ChatPiece) -> dict[str, Any]:
        return lean(head.model_copy(update={"choices": [piece]}), *_OPTIONAL_IN_PIECES)

    for piece in writer.opening():
        yield chunk(piece)
    last: RequestOutput | None = None
    async for item in asking.outputs():
        if item is None:
            yield None
            continue
        _, last = item
        for piece in writer.pieces(last):
            yield chunk(piece)
    if body.wants_usage and last is not None:
        yield lean(head.model_copy(update={"usage": usage_of([last])}))


def _read(served: Served, body: ChatBody) -> Question:
    """Raises ApiError, and RequestError for a conversation that the template refuses."""
    tools = body.offered_tools
    if tools and not served.tokenizer.knows_tools:
        raise bad_request(
            "the chat template of this model knows no tools; leave them out, or take another model", "tools"
        )
    params = applied(served.defaults, body.given() | structured_fields(body))
    ids = served.talk(body.conversation(), tools)
    served.check_length("messages", len(ids), params.max_tokens)
    return Question(ids, params)
