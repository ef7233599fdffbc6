"""`/v1/chat/completions`."""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from windlass.facts.completion import RequestOutput
from windlass.facts.conversation import Conversation
from windlass.jobs.service.question import Question
from windlass.server.chats.answer import ChatChunk, ChatCompletion, ChatPiece, ChatWriter
from windlass.server.chats.body import ChatBody
from windlass.server.errors.api_error import bad_request
from windlass.server.errors.error_body import ASKING
from windlass.server.questions.asking import Asking
from windlass.server.questions.event_stream import AnswerStream, lean
from windlass.server.questions.hang_up import unless_gone
from windlass.server.questions.sampling_body import applied
from windlass.server.questions.structured import structured_fields
from windlass.server.questions.usage import usage_of
from windlass.server.served import Served

_STREAM = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
# Fields that are left out where they hold nothing; the others are null then, as clients expect.
_OPTIONAL = ("token_ids", "tool_calls")
_OPTIONAL_IN_PIECES = (*_OPTIONAL, "role", "content", "usage")


def chat_routes(served: Served) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["ask"])

    @router.post(
        "/v1/chat/completions", response_model=None, responses=ASKING | {200: {"model": ChatCompletion, **_STREAM}}
    )
    async def chat(body: ChatBody, request: Request) -> Response:
        """Goes on with a conversation, by the model's own chat template."""
        served.check_model(body.model)
        body.check()
        question = await served.read(partial(_read, served, body))
        asking = Asking(served.service, [question], served.waits, served.limits.keep_alive)
        told = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": served.model}
        writer = ChatWriter(body)
        await asking.begin()
        if body.stream:
            return AnswerStream(asking, _pieces(asking, writer, ChatChunk(**told, choices=[]), body))
        try:
            [output] = await unless_gone(request, asking.finished())
        finally:
            asking.give_up()
        answer = ChatCompletion(**told, choices=writer.choices(output), usage=usage_of([output]))
        return JSONResponse(lean(answer, *_OPTIONAL))

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
    messages = body.conversation()
    if served.tokenizer.has_chat_template:
        text = served.tokenizer.chat_text(messages, tools)
        served.check_text("messages", text)
        ids = tuple(served.tokenizer.encode_plain(text))
    else:
        text = _continued(messages)
        served.check_text("messages", text)
        ids = tuple(served.tokenizer.encode(text))
    served.check_length("messages", len(ids), params.max_tokens)
    return Question(ids, params)


def _continued(messages: list[dict[str, Any]]) -> str:
    """A conversation as one text, for a model without a chat template, as `windlass chat` gives it. Raises ApiError."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    said = messages[system is not None :]
    turns = [message["role"] for message in said]
    if turns != ["user" if place % 2 == 0 else "assistant" for place in range(len(turns))] or len(turns) % 2 == 0:
        raise bad_request(
            "this model has no chat template: it goes on from a system message and from user and assistant by turns, "
            "the last of them the user",
            "messages",
        )
    texts = [message["content"] for message in said]
    return Conversation(system, tuple(zip(texts[:-1:2], texts[1:-1:2], strict=True))).continuing(texts[-1])
