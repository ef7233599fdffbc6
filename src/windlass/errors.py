"""The error tree: everything Windlass raises on purpose, so that a door can show it as one plain line.

WindlassError
├── UsageError              a flag, argument or value that makes no sense (exit code 2)
│   └── RequestError        one prompt or batch row is bad; the others go on
├── ModelError              the model named cannot be run
│   ├── ModelNotFound       no such folder or hub id, or the hub cannot be reached
│   ├── CheckpointError     the files of the checkpoint are damaged, missing or disagree with the config
│   └── UnsupportedModel    the architecture is not proven to give the right tokens here
├── BudgetError             it does not fit; says what is needed, what there is and the smallest change that would do
├── DeviceError             the device asked for is missing, too small or failed
├── JobError                a job was given up, as it was told to be
├── StorageError            a disk is full, unreadable or not writable
├── InternalError           a bug of ours broke it off; others go on
└── Unavailable             a service takes no question now
    ├── NotReady            it is still loading, has failed or was closed
    └── QueueFull           as many wait as may; says when to ask again

A message gives the value, the limit and the next step. Anything else that escapes is a bug of ours.
"""

import math


class WindlassError(Exception):
    """Root of the tree. `exit_code` is what the command line returns for it."""

    exit_code = 1


class UsageError(WindlassError):
    """A flag, argument or value that makes no sense."""

    exit_code = 2


class RequestError(UsageError):
    """One prompt or one batch row is bad; the others are unaffected. `param` is the parameter at fault, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelError(WindlassError):
    """The model named cannot be run."""


class ModelNotFound(ModelError):
    """No such folder or hub id, or the hub cannot be reached."""


class CheckpointError(ModelError):
    """The checkpoint's files are damaged, missing or disagree with its config."""


class UnsupportedModel(ModelError):
    """The architecture is not proven to give the right tokens here."""


class BudgetError(WindlassError):
    """The job does not fit the budget; nothing has been loaded."""


class DeviceError(WindlassError):
    """The device asked for is missing, too small or failed."""


class JobError(WindlassError):
    """A job was given up, as it was told to be; what was done is kept."""


class StorageError(WindlassError):
    """A disk is full, unreadable or not writable."""


class InternalError(WindlassError):
    """A bug of ours broke off what was asked of a service, which goes on for others; its log has the rest."""


class Unavailable(WindlassError):
    """A service takes no question now."""


class NotReady(Unavailable):
    """The service is still loading, has failed or was closed. `retry_after`: seconds, infinity where nobody said."""

    def __init__(self, message: str, retry_after: float = math.inf) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Unavailable):
    """As many questions wait as may. `retry_after` is in how many seconds a place in the queue should be free."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
