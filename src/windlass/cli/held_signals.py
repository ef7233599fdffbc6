"""Ctrl-C that waits for its moment: for work which a KeyboardInterrupt in its middle would leave in pieces."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class HeldSignals:
    """In its `with`, SIGINT and SIGTERM are only noted; when it is left, what they were to do is done.

    What the process ignores, or ends by without Python's doing, stays so. In another thread than the main one nothing
    is held: Python's handlers run in the main one.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._noted: dict[int, FrameType | None] = {}

    def __enter__(self) -> "HeldSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number, frame in self._noted.items():
            self._before[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted[number] = frame
