"""One connection of a client: how long its headers may take, and who goes when there are too many.

uvicorn waits for headers as long as a client likes, so that whoever opens connections and sends nothing would take all
the files that a process may have open.
"""

import asyncio
import json
import sys
from contextlib import suppress
from http import HTTPStatus

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from windlass.server.doors.limits import ServerLimits
from windlass.server.errors.api_error import INVALID, ApiError, bad_request, unavailable

_BACKLOG = 2048
_REST = 30
"""Seconds a connection may rest between requests: longer than clients keep theirs (httpx 5 s), who would else choose
one that ends at that moment."""
_LEAVING = 128
"""Connections that were refused and may stay at once to read why, beside those that are served."""


class ListeningConfig(uvicorn.Config):
    """uvicorn's, with our limits. What clients get wrong is told to them and not to the log, which they could fill."""

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        super().__init__(
            app, http=Connection, ws="none", loop="asyncio", lifespan="off", log_config=None, log_level="critical",
            access_log=False, server_header=False, proxy_headers=False, backlog=_BACKLOG, timeout_keep_alive=_REST,
        )  # fmt: skip
        self.limits = limits


class Connection(H11Protocol):
    """Ends itself where the headers of a request are not whole in time, or where what comes is no HTTP.

    A connection that comes when there are as many as may be has the one closed that has waited longest for a request,
    its first or another. Where every one has a request in work it is told 503.

    What was refused stays until its client goes, or as long as headers may take. All that it sends is dropped: closed
    with bytes unread, a socket is reset, and the client loses the answer that says why.
    """

    def __init__(
        self,
        config: ListeningConfig,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = config.limits
        self._deadline: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._refused_at: float | None = None
        self.waits_since = self.loop.time()

    @property
    def waits(self) -> bool:
        """Whether it has no request in work."""
        return self.conn.their_state is h11.IDLE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        has_room = self._make_room()
        super().connection_made(transport)
        if has_room:
            self._expect_headers()
        else:
            most = self._limits.max_connections
            self._refuse(unavailable(f"{most} connections have a request in work, the most at once; come again later"))

    def data_received(self, data: bytes) -> None:
        """Some of a request, or of several."""
        if self._refused_at is not None:
            return
        if self.waits:
            self._has_begun = True
            self._expect_headers()
        super().data_received(data)
        if not self.waits and self._refused_at is None:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """An answer is out; uvicorn's own limit holds until the next request begins."""
        self.waits_since, self._has_begun = self.loop.time(), False
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        self._stop_waiting()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends, and waits for nobody who was refused."""
        if self._refused_at is None:
            super().shutdown()
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP. uvicorn calls it where it catches h11's error, which says more than `msg`."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            said = str(sys.exc_info()[1] or msg)
            self._refuse(bad_request(f"this is no HTTP/1.1: {said:.200}; send it as RFC 9112 has it"))
        else:  # a body goes wrong whose request has its answer, or some of it
            self._leave()

    def _open_ones(self) -> list["Connection"]:
        known = (each for each in self.connections if isinstance(each, Connection))
        return [each for each in known if not each.transport.is_closing()]

    def _make_room(self) -> bool:
        if len(self.connections) < self._limits.max_connections:
            return True
        open_ones = [each for each in self._open_ones() if each._refused_at is None]
        if len(open_ones) < self._limits.max_connections:
            return True
        waiting = [each for each in open_ones if each.waits]
        if waiting:
            min(waiting, key=lambda each: each.waits_since).transport.abort()
        return bool(waiting)

    def _expect_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.head_pause, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._has_begun:
            pause = self._limits.head_pause
            self._refuse(ApiError(408, f"the headers were not whole within {pause:g} s; send them at once", INVALID))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """An answer past uvicorn, which has no request to answer."""
        body = json.dumps(error.body()).encode()
        lines = {
            "Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close",
            **error.headers,
        }  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        phrase = HTTPStatus(error.status).phrase
        self.transport.write(f"HTTP/1.1 {error.status} {phrase}\r\n{head}\r\n".encode() + body)
        self._leave()

    def _leave(self) -> None:
        """Says no more, and stays as the class has it."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        if self.cycle is not None:
            self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
            self.cycle.message_event.set()
        self._refused_at = self.loop.time()
        self.flow.resume_reading()
        with suppress(OSError):  # the client has gone meanwhile
            self.transport.write_eof()
        self._deadline = self.loop.call_later(self._limits.head_pause, self.transport.abort)
        leaving = [(each._refused_at, each) for each in self._open_ones() if each._refused_at is not None]
        if len(leaving) > _LEAVING:
            min(leaving, key=lambda pair: pair[0])[1].transport.abort()
