"""Server-sent events: pieces of an answer as they come, signs of life between them, and an error where it ends so."""

import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from windlass.errors import WindlassError
from windlass.server.errors.api_error import ApiError
from windlass.server.errors.error_answers import api_error
from windlass.server.questions.asking import Asking

KEEP_ALIVE = ": keep-alive\n\n"
DONE = "data: [DONE]\n\n"


def lean(model: BaseModel, *names: str) -> dict[str, Any]:
    """The JSON of a model without fields of these names that hold nothing."""
    told: dict[str, Any] = _without(model.model_dump(), frozenset(names))
    return told


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        kept = ((key, each) for key, each in value.items() if each is not None or key not in names)
        return {key: _without(each, names) for key, each in kept}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


def event(data: dict[str, Any], name: str | None = None) -> str:
    """One event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data)}\n\n"


async def events(pieces: AsyncIterator[dict[str, Any] | None]) -> AsyncIterator[str]:
    """The pieces as events and [DONE] behind them; None is a sign of life. What fails ends it with an `error` event."""
    try:
        async for piece in pieces:
            yield KEEP_ALIVE if piece is None else event(piece)
        yield DONE
    except ApiError as error:
        yield event(error.body(), "error")
    except WindlassError as error:
        yield event(api_error(error).body(), "error")


class AnswerStream(StreamingResponse):
    """A stream whose questions are given up when it ends, even where it never began."""

    def __init__(self, asking: Asking, pieces: AsyncIterator[dict[str, Any] | None]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events(pieces), headers=headers, media_type="text/event-stream")
        self._asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it; a client that goes away cancels this."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._asking.give_up()
