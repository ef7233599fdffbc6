"""Ctrl-C and the request to terminate while a job runs: the first ends it after its pass, the second at once."""

import os
import signal
from types import FrameType

_SAID = b"\nstopping after this pass; once more stops at once\n"


class JobStop:
    """In its `with`, a signal sets `asked`; a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "JobStop":
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *ending: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Past Python's own buffers, in the middle of whose writing this may come.
        os.write(2, _SAID)
