"""Counts the bytes of a body while they arrive, so that a large one is refused before it is held."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windlass.server.limits import ServerLimits
from windlass.units import format_size

UPLOADS = "/v1/files"


class BodyLimit:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, with a body that raises HTTPException 413 where it grows too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limits.max_upload if scope["path"] == UPLOADS else self._limits.max_body
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > most:
                raise HTTPException(
                    413, f"the body has more than {format_size(most)}, the most that is taken here; send less at once"
                )
            return message

        await self._app(scope, counted, send)
