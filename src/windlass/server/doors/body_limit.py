"""Watches a body while it arrives: a large one is refused before it is held, and one that stops coming is given up.

A request has its share of what a key may have in work from its first byte on, so that whoever never sends the last one
would keep others out for as long as the connection lasts.
"""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windlass.server.doors.limits import ServerLimits
from windlass.units import format_size

UPLOADS = "/v1/files"


class BodyLimit:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, with a body that raises HTTPException: 413 if too large, 408 if it rests."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limits.max_upload if scope["path"] == UPLOADS else self._limits.max_body
        count, more = 0, True

        async def counted() -> Message:
            nonlocal count, more
            if not more:
                return await receive()  # it is all there; what comes next is that the client goes away
            pause = self._limits.body_pause
            try:
                message = await asyncio.wait_for(receive(), pause)
            except asyncio.TimeoutError:
                raise HTTPException(
                    408, f"nothing of the body came for {pause:g} s, the longest that is waited; send it again"
                ) from None
            count, more = count + len(message.get("body", b"")), message.get("more_body", False)
            if count > most:
                raise HTTPException(
                    413, f"the body has more than {format_size(most)}, the most that is taken here; send less at once"
                )
            return message

        await self._app(scope, counted, send)
