"""Ctrl-C while an answer is made: the first ends it after the token at hand, the second at once.

After the first the model stays loaded; the second leaves the engine in the middle of a pass, so that it must load the
model again.
"""

import signal
import time
from types import FrameType, TracebackType

# Seconds after which a stop that has not come is worth a word.
PATIENCE = 1.5


class GentleStop:
    """In its `with`, Ctrl-C sets `asked`; a second one raises KeyboardInterrupt, and the first if `at_once`."""

    def __init__(self, at_once: bool = False) -> None:
        self.asked = False
        self._at_once = at_once
        self._asked_at = 0.0

    @property
    def is_late(self) -> bool:
        """Whether it was asked long enough ago for a person to wonder."""
        return self.asked and time.monotonic() - self._asked_at > PATIENCE

    def __enter__(self) -> "GentleStop":
        self.asked = False
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked or self._at_once:
            raise KeyboardInterrupt
        self.asked, self._asked_at = True, time.monotonic()
