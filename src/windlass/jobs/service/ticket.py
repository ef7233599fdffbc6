"""A question that a service has taken, and whoever hears of it."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from windlass.errors import WindlassError
from windlass.facts.completion import RequestOutput
from windlass.facts.request import Request

Ending = Literal["finished", "cancelled", "failed"]


class Listener(Protocol):
    """Called on the service's thread, which must go on: it returns at once."""

    def output(self, output: RequestOutput) -> None:
        """The answers so far, after each pass that drew a token for them; `finished` on the last."""
        ...

    def failed(self, error: WindlassError) -> None:
        """No more will come, since something broke or the service was closed. Not called for one that is cancelled."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """Times are seconds of time.perf_counter: when it was `asked`, got its first place (`entered`), had its `first`
    token and its `last`, and `ended` by its `ending`. `taken` says that the engine knows of it."""

    request: Request
    listener: Listener
    asked: float
    taken: bool = False
    entered: float | None = field(init=False, default=None)
    first: float | None = field(init=False, default=None)
    last: float | None = field(init=False, default=None)
    ended: float | None = field(init=False, default=None)
    ending: Ending | None = field(init=False, default=None)

    @property
    def waited(self) -> float | None:
        """Seconds until it had a place, None before."""
        return None if self.entered is None else self.entered - self.asked

    @property
    def first_token(self) -> float | None:
        """Seconds until its first token, None before."""
        return None if self.first is None else self.first - self.asked
