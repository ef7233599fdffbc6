"""Who waits for a place in the block, and in which order they come in."""

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from windlass.engine.arrivals import Arrivals
from windlass.engine.sequence import Sequence
from windlass.errors import UsageError
from windlass.facts.request import Request

Answers = list[Sequence]


class Line(Protocol):
    """`answers` has those to each request that has come and not ended, by its id.

    `live`: others may come at any time, who should not have to wait long for a pass to end.
    """

    answers: dict[str, Answers]
    live: bool

    @property
    def closed(self) -> bool:
        """Whether nobody waits, and nobody will come."""
        ...

    def first(self, idle: bool, full: bool) -> Sequence | None:
        """Whoever is next, left in the line; None where nobody waits now.

        Where nothing runs it may wait for somebody (`idle`). No request is asked for while no place is free (`full`),
        unless it may go before one that runs.
        """
        ...

    def take(self) -> None:
        """The first leaves the line."""
        ...

    def put_back(self, sequence: Sequence) -> None:
        """One that had a place waits for another, behind the first of the line, for whom it made room."""
        ...

    def waiting(self) -> Iterator[Sequence]:
        """Those in the line, in any order."""
        ...

    def given_up(self) -> Collection[str]:
        """Ids of requests that nobody wants any more; those of their answers that wait leave the line."""
        ...


class ListedLine:
    """Over requests that are asked for one by one, as places fall free: they come in in their order."""

    live = False

    def __init__(self, requests: Iterable[Answers]) -> None:
        self.answers: dict[str, Answers] = {}
        self._source, self._waiting, self._ended = iter(requests), deque[Sequence](), False

    @property
    def closed(self) -> bool:
        return self._ended and not self._waiting

    def first(self, idle: bool, full: bool) -> Sequence | None:
        while not (self._waiting or full or self._ended):
            answers = next(self._source, None)
            if answers is None:
                self._ended = True
            else:
                self.answers[answers[0].request.request_id] = answers
                self._waiting.extend(answers)
        return self._waiting[0] if self._waiting else None

    def take(self) -> None:
        self._waiting.popleft()

    def put_back(self, sequence: Sequence) -> None:
        self._waiting.insert(1, sequence)

    def waiting(self) -> Iterator[Sequence]:
        return iter(self._waiting)

    def given_up(self) -> Collection[str]:
        return ()


class LiveLine:
    """Over requests that come while others run: by priority, and among equals those first that came first.

    `admit` makes the answers to a request, or raises UsageError: then it is refused, and the others go on.
    """

    live = True

    def __init__(self, arrivals: Arrivals, admit: Callable[[Request], Answers]) -> None:
        self.answers: dict[str, Answers] = {}
        self._arrivals, self._admit = arrivals, admit
        # Numbers are given in the order of arrival, so one that comes back stands before those that came after it.
        self._heap: list[tuple[int, int, Sequence]] = []

    @property
    def closed(self) -> bool:
        return self._arrivals.closed

    def first(self, idle: bool, full: bool) -> Sequence | None:
        while (request := self._arrivals.next(idle and not self._heap)) is not None:
            self._come_in(request)
        return self._heap[0][2] if self._heap else None

    def take(self) -> None:
        heapq.heappop(self._heap)

    def put_back(self, sequence: Sequence) -> None:
        heapq.heappush(self._heap, (sequence.request.priority, sequence.number, sequence))

    def waiting(self) -> Iterator[Sequence]:
        return (sequence for _, _, sequence in self._heap)

    def given_up(self) -> Collection[str]:
        ids = frozenset(self._arrivals.withdrawn())
        if ids:
            self._heap = [entry for entry in self._heap if entry[2].request.request_id not in ids]
            heapq.heapify(self._heap)
            for request_id in ids:
                self.answers.pop(request_id, None)
        return ids

    def _come_in(self, request: Request) -> None:
        try:
            answers = self._admit(request)
        except UsageError as error:
            self._arrivals.refused(request.request_id, error)
            return
        self.answers[request.request_id] = answers
        for sequence in answers:
            self.put_back(sequence)
