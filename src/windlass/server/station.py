"""A model with all that a server needs around it: the service, the batches, the application and where it listens."""

import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from windlass import __version__
from windlass.engine.llm import LLM
from windlass.errors import WindlassError
from windlass.facts.job_identity import JobIdentity
from windlass.jobs.batch_queue.batch_queue import BatchQueue
from windlass.jobs.batch_queue.service_answerer import ServiceAnswerer
from windlass.jobs.service.limits import Limits
from windlass.jobs.service.service import Service
from windlass.server.app import create_app
from windlass.server.doors.limits import ServerLimits
from windlass.server.listening.listening import Listening
from windlass.server.listening.signals import Signals
from windlass.server.served import Served
from windlass.server.telling.waits import Waits


@dataclass(frozen=True, slots=True)
class Doors:
    """Who may come in: `keys`, of which one is needed where there are any, and names beside numbers in `hosts`."""

    keys: Sequence[str] = ()
    hosts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BatchOrders:
    """Batches are kept in `folder` and belong to a model of this `identity`; `seed` is for rows that bring none."""

    folder: Path
    identity: JobIdentity
    seed: int


class Station:
    """Everything made, nothing started. `name` is what clients call the model; they may call it `also` so."""

    def __init__(
        self,
        llm: LLM,
        name: str,
        listener: socket.socket,
        service_limits: Limits,
        limits: ServerLimits,
        doors: Doors,
        orders: BatchOrders | None = None,
        also: str | None = None,
    ) -> None:
        self.service = Service(llm, service_limits, __version__)
        self.batches = None if orders is None else self._queue(llm, name, orders)
        registry = CollectorRegistry()
        self.served = Served(
            service=self.service,
            model=name,
            tokenizer=llm.tokenizer,
            vocab_size=llm.opened.facts.vocab_size,
            defaults=llm.default_sampling_params,
            limits=limits,
            waits=Waits(registry),
            batches=self.batches,
            also=also,
        )
        self.app = create_app(self.served, registry, doors.keys, doors.hosts)
        self.listening = Listening(self.app, listener, self._stop, limits)

    def run(self, on_ready: Callable[[], None]) -> bool:
        """Serves until it is stopped; whether a signal did it. `on_ready` is called once the model is loaded.

        The model computes in the thread that calls; requests are read and answered in others. Raises WindlassError
        where the model cannot be loaded.
        """
        with Signals(self.listening.interrupt):
            self.listening.start()
            threading.Thread(target=self._watch, args=(on_ready,), name="windlass-ready", daemon=True).start()
            # The model was opened in this thread. Computed in another, its threads would be two sets, each of which
            # counts as too many for the processor and yields where it should spin.
            self.service.run()
            self.listening.wait()
        if self.service.failure is not None:
            raise WindlassError(str(self.service.failure)) from self.service.failure
        return self.listening.interrupted

    def _watch(self, on_ready: Callable[[], None]) -> None:
        if self.service.wait() == "failed":
            self.listening.end()
        elif self.service.state != "closed":
            if self.batches is not None:
                self.batches.start()
            on_ready()

    def _stop(self) -> None:
        self.service.close()
        if self.batches is not None:
            self.batches.close()

    def _queue(self, llm: LLM, name: str, orders: BatchOrders) -> BatchQueue:
        answerer = ServiceAnswerer(self.service, llm, orders.seed)
        return BatchQueue(orders.folder, name, answerer, orders.identity, llm.default_sampling_params, self._is_ready)

    def _is_ready(self) -> bool:
        return self.service.state == "ready"
