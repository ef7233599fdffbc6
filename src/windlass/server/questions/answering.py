"""How a request that asks is answered, whichever its form: whole at the end, or as a stream while it grows."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from windlass.facts.completion import RequestOutput
from windlass.server.questions.asking import Asking
from windlass.server.questions.event_stream import AnswerStream
from windlass.server.questions.hang_up import unless_gone

STREAMED: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
"""Of the OpenAPI document: what an answer may be besides JSON."""


async def answered(
    request: Request,
    asking: Asking,
    pieces: AsyncIterator[dict[str, Any] | None] | None,
    whole: Callable[[list[RequestOutput]], dict[str, Any]],
) -> Response:
    """Asks, and streams the `pieces` or, without any, gives the `whole`. Raises WindlassError, and HungUp."""
    await asking.begin()
    if pieces is not None:
        return AnswerStream(asking, pieces)
    try:
        outputs = await unless_gone(request, asking.finished())
    finally:
        asking.give_up()
    return JSONResponse(whole(outputs))
