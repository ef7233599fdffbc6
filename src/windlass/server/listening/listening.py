"""Listens until it is told to stop: once for after the pass in flight, twice for at once."""

import os
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from windlass.jobs.service.caught import Caught
from windlass.server.doors.limits import ServerLimits
from windlass.server.listening.connection import ListeningConfig

_SAID = b"\nstopping after the pass in flight (or the part that is loaded now); once more stops at once\n"
_CURSOR = b"\x1b[?25h"
INTERRUPTED = 130


class Listening:
    """Serves an application at a socket, in a thread of its own.

    `stop` ends what answers it, is called once in yet another thread, and may take as long as a pass.
    """

    def __init__(
        self, app: ASGIApp, listener: socket.socket, stop: Callable[[], None], limits: ServerLimits | None = None
    ) -> None:
        self._server = uvicorn.Server(ListeningConfig(app, limits or ServerLimits()))
        self._listener = listener
        self._thread = threading.Thread(target=self._serve, name="windlass-http", daemon=True)
        self._stopping = threading.Thread(target=stop, name="windlass-stop", daemon=True)
        self._ending = threading.Lock()
        self._error: Exception | None = None
        self.interrupted = False

    def start(self) -> None:
        """Begins to listen, and returns at once."""
        self._thread.start()

    def wait(self) -> None:
        """Until it was ended and every connection has had its end. Raises what broke it."""
        self._thread.join()
        self._stopping.join()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Takes no more connections, and ends what is answered. From any thread; may be called twice."""
        with self._ending:
            if not self._server.should_exit:
                self._server.should_exit = True
                self._stopping.start()

    def interrupt(self) -> None:
        """A signal. The second one leaves a pass in the middle, which nothing but the end of the process can."""
        if self.interrupted:
            if os.isatty(2):
                os.write(2, _CURSOR)  # a bar that shows the load has hidden it
            os._exit(INTERRUPTED)
        self.interrupted = True
        # Past Python's own buffers, in the middle of whose writing this may come.
        os.write(2, _SAID)
        self.end()

    def _serve(self) -> None:
        with Caught() as caught:
            self._server.run(sockets=[self._listener])
        self._error = caught.error
        self.end()
