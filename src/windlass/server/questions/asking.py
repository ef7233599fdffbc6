"""Between a request and the service: asks all of its questions or none, hears the answers, and gives up what is left.

The service speaks from a thread of its own. An output holds all of an answer so far, so that of those which nobody has
taken yet the last one is enough: a client that reads slowly costs no memory.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from anyio import to_thread

from windlass.errors import RequestError, WindlassError
from windlass.facts.completion import RequestOutput
from windlass.jobs.service.question import Question
from windlass.jobs.service.service import Service
from windlass.jobs.service.ticket import Ticket
from windlass.server.errors.api_error import bad_request
from windlass.server.telling.waits import Waits


class _Mailbox:
    """The latest of one question. It is filled by the service's thread, and `wake`s the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: asyncio.Event, waits: Waits) -> None:
        self._loop, self._wake, self._waits = loop, wake, waits
        self._asked = self._heard = time.monotonic()
        self._tokens = 0
        self._latest: RequestOutput | None = None
        self._failure: WindlassError | None = None

    def output(self, output: RequestOutput) -> None:
        """After a pass that drew for it."""
        now, tokens = time.monotonic(), sum(len(choice.token_ids) for choice in output.outputs)
        if self._tokens == 0:
            self._waits.first(now - self._asked)
        elif tokens > self._tokens:
            self._waits.between(now - self._heard)
        self._heard, self._tokens, self._latest = now, tokens, output
        self._ring()

    def failed(self, error: WindlassError) -> None:
        """There will be no more."""
        self._failure = error
        self._ring()

    def take(self) -> RequestOutput | None:
        """What came since the last call. Raises what the service failed with."""
        latest, self._latest = self._latest, None
        if latest is None and self._failure is not None:
            raise self._failure
        return latest

    def _ring(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake.set)


class Asking:
    """The questions of one request. After `begin`, whoever holds it sees to `give_up`, whatever happens.

    `form_field` is the field in which the request asks for a form of the answers.
    """

    def __init__(
        self, service: Service, questions: Sequence[Question], waits: Waits, keep_alive: float, form_field: str
    ) -> None:
        self._service, self._questions, self._waits, self._keep_alive = service, questions, waits, keep_alive
        self._form_field = form_field
        self._wake = asyncio.Event()
        self._boxes: list[_Mailbox] = []
        self._tickets: dict[int, Ticket] = {}

    async def begin(self) -> None:
        """Asks. Raises ApiError or WindlassError for the first question that is not taken; the others are given up."""
        loop = asyncio.get_running_loop()
        try:
            await to_thread.run_sync(self._ask_all, loop)
        except BaseException:
            self.give_up()
            raise

    async def outputs(self) -> AsyncIterator[tuple[int, RequestOutput] | None]:
        """A question's number and its answers so far, as they grow; None after a while of silence.

        Raises WindlassError where the service failed.
        """
        while self._tickets:
            try:
                await asyncio.wait_for(self._wake.wait(), self._keep_alive)
            except asyncio.TimeoutError:
                yield None
                continue
            self._wake.clear()
            for number in sorted(self._tickets):
                # Asked again until it has nothing: a failure may stand behind an output, and rings no second time.
                while number in self._tickets and (output := self._boxes[number].take()) is not None:
                    if output.finished:
                        del self._tickets[number]
                    yield number, output

    async def finished(self) -> list[RequestOutput]:
        """All the answers at their end, in the order of the questions. Raises WindlassError."""
        done: dict[int, RequestOutput] = {}
        async for item in self.outputs():
            if item is not None and item[1].finished:
                done[item[0]] = item[1]
        return [done[number] for number in range(len(self._questions))]

    def give_up(self) -> None:
        """Frees the places of what has not ended. May be called twice."""
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            self._service.cancel(ticket)

    def _ask_all(self, loop: asyncio.AbstractEventLoop) -> None:
        for number, question in enumerate(self._questions):
            box = _Mailbox(loop, self._wake, self._waits)
            self._boxes.append(box)
            try:
                self._tickets[number] = self._service.ask(question, box)
            except RequestError as error:
                param = self._form_field if error.param == "structured_outputs" else error.param
                raise bad_request(str(error), param) from error
