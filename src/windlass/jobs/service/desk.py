"""Where questions are handed in and answers handed out: between the threads that ask and the one that runs the model.

The engine asks it for what has come (Arrivals) and tells it how the block stands. It knows every ticket that is open.
A lock is held for moments only, and never while a listener is called.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Collection
from math import ceil

from windlass.engine.block_state import BlockState
from windlass.engine.precedence import URGENT
from windlass.errors import NotReady, QueueFull, UsageError, WindlassError
from windlass.facts.completion import RequestOutput
from windlass.facts.request import Request
from windlass.jobs.service.caught import Caught
from windlass.jobs.service.ticket import Ending, Ticket
from windlass.jobs.service.waits import Waits

# Passes that rates are taken over.
WINDOW = 16
# Seconds that somebody is told to wait at most before asking again.
LONGEST_RETRY = 600.0


class Desk:
    """For one service; `max_queue` questions may wait that are as urgent as one that comes, or more so."""

    def __init__(self, max_queue: int) -> None:
        self.max_queue, self.closed = max_queue, False
        self.waits = Waits()
        self.endings: dict[Ending, int] = {"finished": 0, "cancelled": 0, "failed": 0}
        self.prompt_tokens = self.generated_tokens = self.set_aside = 0
        self.lock = threading.Condition()
        self._open: dict[str, Ticket] = {}
        self._heap: list[tuple[int, int, Ticket]] = []
        self._withdrawn: set[str] = set()
        self._recent: deque[BlockState] = deque(maxlen=WINDOW + 1)
        self._state: BlockState | None = None

    # Whoever asks.

    def put(self, ticket: Ticket, places: int) -> None:
        """Takes a question in. Raises QueueFull, and NotReady once it is closed."""
        with self.lock:
            if self.closed:
                raise NotReady("the service was closed; start it again and ask anew")
            waiting = self.waiting(ticket.request.priority)
            if waiting >= self.max_queue:
                seconds = self._retry_after(places)
                raise QueueFull(
                    f"{waiting} questions wait, {self.max_queue} may (--max-queue); ask again in {seconds:.0f} s",
                    seconds,
                )
            self._open[ticket.request.request_id] = ticket
            self._push(ticket)
            self.lock.notify_all()

    def withdraw(self, ticket: Ticket) -> bool:
        """Gives a question up; whether it was still open."""
        with self.lock:
            if ticket.ended is not None:
                return False
            self._end(ticket, "cancelled")
            if ticket.taken:
                self._withdrawn.add(ticket.request.request_id)
            return True

    def close(self) -> None:
        """Takes nothing more in, and has the engine stop after the pass in flight."""
        with self.lock:
            self.closed = True
            self.lock.notify_all()

    def waiting(self, priority: int | None = None) -> int:
        """Questions that have had no place yet, of those as urgent as `priority` or more so."""
        return sum(
            ticket.entered is None and (priority is None or ticket.request.priority <= priority)
            for ticket in self._open.values()
        )

    def open_count(self) -> int:
        """Questions that have not ended."""
        return len(self._open)

    def states(self) -> tuple[BlockState | None, tuple[BlockState, ...]]:
        """How the block stands, and how it stood after each of the last passes."""
        return self._state, tuple(self._recent)

    # The engine, see Arrivals.

    def next(self, idle: bool) -> Request | None:
        with self.lock:
            while True:
                while self._heap and not self.closed:
                    ticket = heapq.heappop(self._heap)[2]
                    if ticket.ended is None:
                        ticket.taken = True
                        return ticket.request
                if not idle or self.closed:
                    return None
                self.lock.wait()

    def withdrawn(self) -> Collection[str]:
        with self.lock:
            ids, self._withdrawn = self._withdrawn, set()
            return ids

    def refused(self, request_id: str, error: UsageError) -> None:
        self._fail([self._open[request_id]] if request_id in self._open else [], error)

    def tell(self, state: BlockState) -> None:
        now = time.perf_counter()
        with self.lock:
            before = self._recent[-1] if self._recent else None
            if before is None or state.passes < before.passes:
                self._recent.clear()
                self._recent.append(state)
            elif state.passes > before.passes:
                self._recent.append(state)
                self.prompt_tokens += state.prompt_tokens - before.prompt_tokens
                self.generated_tokens += state.generated_tokens - before.generated_tokens
            self.set_aside += state.set_aside - (self._state.set_aside if self._state else 0)
            self._state = state
            for request_id in state.entered:
                ticket = self._open.get(request_id)
                if ticket is not None and ticket.entered is None:
                    ticket.entered = now
                    if ticket.request.priority <= URGENT:
                        self.waits.place.append(now - ticket.asked)

    # The service's thread.

    def deliver(self, output: RequestOutput) -> None:
        """Hands an answer to whoever asked for it, if anybody still wants it."""
        with self.lock:
            ticket = self._open.get(output.request_id)
            if ticket is None:
                return
            self._time_token(ticket, time.perf_counter())
            if output.finished:
                self._end(ticket, "finished")
        with Caught() as caught:
            ticket.listener.output(output)
        if caught.error is not None:
            # Whoever listened is gone.
            self.withdraw(ticket)

    def fail_running(self, error: WindlassError) -> int:
        """The engine broke off: what ran has failed, and what waited is handed in again. How many have failed."""
        with self.lock:
            taken = [ticket for ticket in self._open.values() if ticket.taken]
            # Where nobody had a place yet, it broke on somebody who was to get one.
            failing = [ticket for ticket in taken if ticket.entered is not None] or taken
            for ticket in taken:
                if ticket not in failing:
                    self._push(ticket)
            self._withdrawn.clear()
            self._recent.clear()
            self._state = None
        self._fail(failing, error)
        return len(failing)

    def fail_all(self, error: WindlassError) -> None:
        """Nothing will be answered any more."""
        self.close()
        self._fail(list(self._open.values()), error)
        self._state = None

    def _push(self, ticket: Ticket) -> None:
        ticket.taken = False
        heapq.heappush(self._heap, (ticket.request.priority, int(ticket.request.request_id), ticket))

    def _end(self, ticket: Ticket, ending: Ending) -> None:
        ticket.ended, ticket.ending = time.perf_counter(), ending
        self.endings[ending] += 1
        if ending == "finished" and ticket.entered is not None:
            self.waits.stays.append(ticket.ended - ticket.entered)
        del self._open[ticket.request.request_id]

    def _fail(self, tickets: list[Ticket], error: WindlassError) -> None:
        for ticket in tickets:
            with self.lock:
                if ticket.ended is not None:
                    continue
                self._end(ticket, "failed")
            with Caught():
                ticket.listener.failed(error)

    def _time_token(self, ticket: Ticket, now: float) -> None:
        urgent = ticket.request.priority <= URGENT
        if ticket.first is None:
            ticket.first = now
            if urgent:
                self.waits.first_token.append(now - ticket.asked)
        elif urgent and ticket.last is not None:
            self.waits.between_tokens.append(now - ticket.last)
        ticket.last = now

    def _retry_after(self, places: int) -> float:
        """Seconds until one of those who run should leave, by how long they stayed of late; whole ones, from 1."""
        stays = self.waits.stays
        if stays:
            expected = sum(stays) / len(stays) / max(1, places)
        else:
            expected = self._recent[-1].seconds / max(1, self._recent[-1].passes) if self._recent else 1.0
        return float(min(LONGEST_RETRY, max(1.0, ceil(expected))))
