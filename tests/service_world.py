"""Whoever asks a service in tests: hears what it says, and waits for it by events."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from windlass.engine.llm import LLM
from windlass.errors import WindlassError
from windlass.facts.completion import RequestOutput
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.service.limits import Limits
from windlass.jobs.service.question import Question
from windlass.jobs.service.service import Service
from windlass.jobs.service.ticket import Ticket

# A test that hangs fails after so many seconds; no other test depends on it.
PATIENCE = 300.0


class Hearer:
    """Keeps what it hears. `begun` is set with the first token, `ended` with the last or with an error."""

    def __init__(self) -> None:
        self.outputs: list[RequestOutput] = []
        self.error: WindlassError | None = None
        self.begun, self.ended = threading.Event(), threading.Event()

    def output(self, output: RequestOutput) -> None:
        self.outputs.append(output)
        self.begun.set()
        if output.finished:
            self.ended.set()

    def failed(self, error: WindlassError) -> None:
        self.error = error
        self.ended.set()

    def answers(self) -> list[list[int]]:
        """Token ids of each answer, once they have ended well."""
        assert self.ended.wait(PATIENCE) and self.error is None, self.error
        return [list(answer.token_ids) for answer in self.outputs[-1].outputs]


class Gate:
    """A listener on whose thread the service stops at the first token until it is opened: a pass can be held so."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.heard = Hearer()

    def output(self, output: RequestOutput) -> None:
        self.heard.output(output)
        self.reached.set()
        assert self.open.wait(PATIENCE)

    def failed(self, error: WindlassError) -> None:
        self.heard.failed(error)


def asked(service: Service, prompt: list[int], params: SamplingParams, priority: int = 0) -> tuple[Ticket, Hearer]:
    """A question, handed in."""
    hearer = Hearer()
    return service.ask(Question(tuple(prompt), params, priority), hearer), hearer


def ready(service: Service) -> Service:
    """Once it has been started and can be asked."""
    service.start()
    assert service.wait() == "ready", service.failure
    return service


@contextmanager
def served(llm: LLM, limits: Limits) -> Iterator[Service]:
    """A service that can be asked, closed in the end."""
    service = Service(llm, limits)
    try:
        yield ready(service)
    finally:
        service.close()
