"""A kernel that does not run on this machine's device is replaced by plain torch, and that is said once."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

LOG = logging.getLogger("windlass")
Result = TypeVar("Result")


class Guard:
    """Remembers which kernels do not run here. `failures` are what a kernel raises that cannot be compiled or run."""

    def __init__(self, failures: tuple[type[Exception], ...]) -> None:
        self._failures = failures
        self._refused: set[str] = set()

    def tried(self, what: str, kernel: Callable[[], Result], plain: Callable[[], Result]) -> Result:
        """What `kernel` gives or, where it once failed, what `plain` gives. `what` is for people.

        Memory that runs out is no fault of a kernel: torch.OutOfMemoryError is raised on.
        """
        if what not in self._refused:
            try:
                return kernel()
            except torch.OutOfMemoryError:
                raise
            except self._failures as error:
                self._refused.add(what)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                LOG.warning("%s goes by plain torch, since its kernel does not run here: %s", what, reason)
        return plain()
