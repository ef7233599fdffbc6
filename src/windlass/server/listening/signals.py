"""Ctrl-C and a polite kill, heard at once although the main thread computes."""

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

_HEARD = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """A context in which `heard` is called, in a thread of its own, for every SIGINT and SIGTERM of the process.

    Python runs a handler in the main thread and between two of its steps, and a product of large matrices is one step;
    but the number of a signal is written to a socket at once (signal.set_wakeup_fd). Entered in another thread than
    the main one it hears nothing, since Python lets no other set that up.
    """

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard
        self._thread = threading.Thread(target=self._listen, name="windlass-signals", daemon=True)
        self._main = False

    def __enter__(self) -> "Signals":
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._reading, self._written = socket.socketpair()
            self._written.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, _nothing) for number in _HEARD}
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._main:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._written.close()  # which ends the thread
        self._thread.join()
        self._reading.close()

    def _listen(self) -> None:
        while numbers := self._reading.recv(64):
            for _ in range(sum(number in _HEARD for number in numbers)):
                self._heard()


def _nothing(number: int, frame: FrameType | None) -> None:
    """In place of Python's own, which would raise KeyboardInterrupt wherever the main thread is."""
