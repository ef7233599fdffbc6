"""Listens until it is told to stop: once for after the pass in flight, twice for at once."""

import os
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

_SAID = b"\nstopping after the pass in flight; once more stops at once\n"
INTERRUPTED = 130
_BACKLOG = 2048


class Listening(uvicorn.Server):
    """Serves an application at a socket. `stop` ends what answers it, and may take as long as a pass.

    `run` returns when every connection has had its end. It takes the signals of the process in the main thread only.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, stop: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app, http="h11", ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False,
                server_header=False, proxy_headers=False, backlog=_BACKLOG,
            )
        )  # fmt: skip
        self._listener = listener
        self._stopping = threading.Thread(target=stop, name="windlass-stop", daemon=True)
        self.interrupted = False

    def listen(self) -> None:
        """Until it is ended."""
        self.run(sockets=[self._listener])
        self.end()
        self._stopping.join()

    def end(self) -> None:
        """Takes no more connections, and ends what is answered. From any thread; may be called twice."""
        if not self.should_exit:
            self.should_exit = True
            self._stopping.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal. The second one leaves a pass in the middle, which nothing but the end of the process can."""
        if self.interrupted:
            os._exit(INTERRUPTED)
        self.interrupted = True
        # Past Python's own buffers, in the middle of whose writing this may come.
        os.write(2, _SAID)
        self.end()
