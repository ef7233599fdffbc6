"""What answers a batch in a server: the service that answers people too, who go first."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue

from windlass.engine.llm import LLM
from windlass.errors import InternalError, QueueFull, StorageError, WindlassError
from windlass.facts.completion import RequestOutput
from windlass.facts.workload import Workload
from windlass.jobs.batch.ask import Ask
from windlass.jobs.batch.llm_answerer import LLMAnswerer
from windlass.jobs.service.question import Question
from windlass.jobs.service.service import Service
from windlass.jobs.service.ticket import Ticket

BATCH_PRIORITY = 1
_LOOK_EVERY = 1.0
"""Seconds after which, though no pass has ended, it is asked whether to go on."""

Told = tuple[int, RequestOutput | WindlassError]


class _Row:
    """Hears of one row. `stream`: after every pass and not only at the end."""

    def __init__(self, number: int, inbox: SimpleQueue[Told], stream: bool) -> None:
        self._number, self._inbox, self._stream = number, inbox, stream

    def output(self, output: RequestOutput) -> None:
        """A pass drew for it."""
        if self._stream or output.finished:
            self._inbox.put((self._number, output))

    def failed(self, error: WindlassError) -> None:
        """There will be no more."""
        self._inbox.put((self._number, error))


class ServiceAnswerer(LLMAnswerer):
    """The Answerer that a Service over `llm` is. `seed` is for rows that bring none, as in an engine of a job's own."""

    report = None

    def __init__(self, service: Service, llm: LLM, seed: int) -> None:
        super().__init__(llm)
        self._service, self._seed = service, seed

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence."""
        return self._service.max_model_len

    def make_ready(self, workload: Workload) -> Sequence[str]:
        """The service is loaded for whatever fits it."""
        return ()

    def broken_off(self) -> None:
        """The service sees to itself."""

    def answered(
        self, asks: Iterable[Ask], workload: Workload, stream: bool, until: Callable[[], bool]
    ) -> Iterator[tuple[int, RequestOutput]]:
        """Number and output of each row, see Answerer. As many rows are asked at once as there are places."""
        inbox: SimpleQueue[Told] = SimpleQueue()
        running: dict[int, Ticket] = {}
        waiting = iter(asks)
        held: Ask | None = None
        try:
            while True:
                held = self._fill(waiting, held, running, inbox, stream)
                if not running and held is None:
                    return
                for number, told in _arrived(inbox):
                    if isinstance(told, WindlassError):
                        raise (
                            told if isinstance(told, StorageError | InternalError) else StorageError(str(told))
                        ) from told
                    if told.finished:
                        del running[number]
                    yield number, told
                if until():
                    return
        finally:
            for ticket in running.values():
                self._service.cancel(ticket)

    def _fill(
        self,
        waiting: Iterator[Ask],
        held: Ask | None,
        running: dict[int, Ticket],
        inbox: SimpleQueue[Told],
        stream: bool,
    ) -> Ask | None:
        """Asks while there is a place. One for which the queue has no room comes back, to be asked again."""
        while len(running) < max(1, self._service.view().queue.places):
            ask = held or next(waiting, None)
            if ask is None:
                return None
            try:
                running[ask.number] = self._service.ask(self._question(ask), _Row(ask.number, inbox, stream))
            except QueueFull:
                return ask
            held = None
        return held

    def _question(self, ask: Ask) -> Question:
        params = ask.question.params
        if params.seed is None:
            params = replace(params, seed=self._seed + ask.number)
        return Question(ask.question.prompt_token_ids, params, BATCH_PRIORITY, ask.begun)


def _arrived(inbox: SimpleQueue[Told]) -> Iterator[Told]:
    """All that was told until now; waits for the first of it, but not long."""
    try:
        yield inbox.get(timeout=_LOOK_EVERY)
        while True:
            yield inbox.get_nowait()
    except Empty:
        return
