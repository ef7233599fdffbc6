"""How much one client may ask of a server."""

from dataclasses import dataclass

from windlass.errors import UsageError
from windlass.units import GIB, MIB


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Raises UsageError for a limit under which nothing could be asked.

    max_queue: questions that wait at most. max_requests_per_key: requests of one key, or of all without one, that may
    be in work at once. max_body, max_upload: bytes of a question, and of a file. max_connections: sockets that are open
    at once. keep_alive: seconds of silence after which a stream says that it is still there. head_pause: seconds within
    which a request's headers must be whole. body_pause: seconds after which a body that does not come is given up.
    """

    max_queue: int = 256
    max_requests_per_key: int = 256
    max_body: int = 16 * MIB
    max_upload: int = GIB
    max_connections: int = 512  # half of the files that a process may have open, where nobody raised that
    keep_alive: float = 10.0
    head_pause: float = 10.0
    body_pause: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; at that nothing could be asked, raise it")
