"""One thread that owns the model and answers who asks; when something of the machine breaks it starts again."""

import itertools
import logging
import threading
import time
from dataclasses import replace
from typing import Literal

from windlass.engine.last_pass import LastPass
from windlass.engine.llm import LLM
from windlass.errors import NotReady, RequestError, WindlassError
from windlass.facts.plan import Plan
from windlass.facts.request import Request
from windlass.jobs.service.caught import Caught
from windlass.jobs.service.desk import Desk
from windlass.jobs.service.limits import Limits
from windlass.jobs.service.links import link_rates
from windlass.jobs.service.outlook import Outlook
from windlass.jobs.service.question import Question
from windlass.jobs.service.ticket import Listener, Ticket
from windlass.jobs.service.tiers import tiers
from windlass.jobs.service.view import ServiceView
from windlass.jobs.service.watch import pass_view, queue_view, speed_view, wait_view, what_binds

LOG = logging.getLogger("windlass")

State = Literal["loading", "ready", "failed", "closed"]


class Service:
    """Of one LLM, which nobody else may ask from now on. `version` is shown in the view.

    `state` is "loading" until the model is there, and again while it is loaded anew after an error of the machine
    (StorageError, BudgetError, DeviceError), with which what ran fails; what waited goes on. It is "failed" when the
    model cannot be loaded, or by a bug of ours, and then `failure` says why. No ticket is left without an end.
    """

    def __init__(self, llm: LLM, limits: Limits, version: str = "") -> None:
        self.llm, self.limits, self.version = llm, limits, version
        self.state: State = "loading"
        self._settled = threading.Event()
        self.failure: WindlassError | None = None
        self.started = time.perf_counter()
        self._model_len = llm.opened.facts.max_model_len
        self._workload = limits.workload(self._model_len)
        self._plan: Plan | None = None
        self._numbers = itertools.count()
        self._desk, self._last_pass = Desk(limits.max_queue), LastPass()
        self._outlook = Outlook(llm)
        self._thread = threading.Thread(target=self._work, name="windlass-service", daemon=True)
        llm.record(self._last_pass)

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt and answer together."""
        longest = self.limits.longest(self._model_len)
        plan = self._plan
        return longest if plan is None else min(longest, plan.num_pages * plan.page_tokens + 1)

    @property
    def open_tickets(self) -> int:
        """Questions that have been taken and have not ended."""
        return self._desk.open_count()

    def start(self) -> None:
        """Begins to load the model, and returns at once."""
        self._thread.start()

    def wait(self) -> State:
        """Waits while it is loading; the state then."""
        self._settled.wait()
        return self.state

    def ask(self, question: Question, listener: Listener) -> Ticket:
        """Takes a question in, which is answered as soon as there is a place. Any thread may ask.

        Raises RequestError and UsageError for one that this model does not take, QueueFull where too many wait, and
        NotReady while nothing can be asked.
        """
        self._refuse_unless_ready()
        request = self._request(question)
        self.llm.check_request(request)
        ticket = Ticket(request, listener, time.perf_counter())
        plan = self._plan
        self._desk.put(ticket, plan.block_size if plan else 1)
        return ticket

    def cancel(self, ticket: Ticket) -> bool:
        """Gives a question up: its place is free with the next pass, and its listener hears no more of it.

        Whether it was still open; any thread may cancel, and more than once.
        """
        return self._desk.withdraw(ticket)

    def view(self) -> ServiceView:
        """How everything stands. Any thread may look, and none waits for a pass."""
        plan, desk, opened, foresight = self._plan, self._desk, self.llm.opened, self.llm.foresight
        state, passes = desk.states()
        return ServiceView(
            model=opened.facts.name,
            state=self.state,
            version=self.version,
            uptime=time.perf_counter() - self.started,
            tiers=tiers(plan, opened.facts, state) if plan else (),
            links=link_rates(plan, foresight.machine if foresight else None, passes),
            last_pass=pass_view(self._last_pass.latest()),
            binds=what_binds(self.state, state, passes),
            queue=queue_view(desk, plan, state),
            speed=speed_view(desk, passes, self._outlook.tokens_per_second(passes, plan) if plan else None),
            wait=wait_view(desk),
            requests=dict(desk.endings) | {"set_aside": desk.set_aside},
        )

    def close(self) -> None:
        """Stops after the pass in flight and frees the model; what is open fails. May be called twice."""
        self._desk.close()
        if self._thread.is_alive():
            self._thread.join()
        elif self.state == "loading":  # it was never started
            self._become("closed")
            self.llm.close()

    def _refuse_unless_ready(self) -> None:
        if self.state == "loading":
            raise NotReady("the model is being loaded; ask again when it is ready")
        if self.state == "failed":
            raise NotReady(f"the service has failed: {self.failure}; see its log, and start it again")
        if self.state == "closed":
            raise NotReady("the service was closed; start it again and ask anew")

    def _request(self, question: Question) -> Request:
        """With an answer no longer than the cache has room for."""
        number, ids, params = next(self._numbers), tuple(question.prompt_token_ids), question.params
        room = self.max_model_len - len(ids)
        if room < 1:
            raise RequestError(
                f"the prompt has {len(ids)} tokens, {self.max_model_len} are served with the answer; shorten it "
                f"or start the service with a greater --max-model-len (the model takes {self._model_len})"
            )
        params = replace(params, max_tokens=min(params.max_tokens or room, room))
        return Request(str(number), None, ids, params, question.begun, question.priority)

    def _become(self, state: State) -> None:
        self.state = state
        if state == "loading":
            self._settled.clear()
        else:
            self._settled.set()

    def _work(self) -> None:
        with Caught() as caught:
            self._serve()
        self._ended(caught.error)
        with Caught() as caught:
            self.llm.close()
        if caught.error is not None:
            LOG.error("the model could not be put away: %s", caught.error)

    def _serve(self) -> None:
        """Until it is closed. Raises what a load raises, and bugs."""
        self._plan = self.llm.prepare(self._workload)
        while not self._desk.closed:
            self._become("ready")
            try:
                for output in self.llm.serve(self._desk, self._workload):
                    self._desk.deliver(output)
            except WindlassError as error:
                LOG.warning("the model is loaded anew: %s", error)
                self._become("loading")
                self._desk.fail_running(error)
                # A process that has run holds a little more than one that has not: planned anew, it might not fit.
                self.llm.adopt(self._plan)
                self.llm.prepare(self._workload)

    def _ended(self, error: Exception | None) -> None:
        """Tells everybody, whatever it was that ended it."""
        if error is None:
            self._become("closed")
            self._desk.fail_all(NotReady("the service was closed before this was answered; ask again when it is back"))
            return
        if not isinstance(error, WindlassError):
            LOG.critical("the service ends by a bug", exc_info=error)
            named = f"{type(error).__name__}: {error}"
            error = WindlassError(
                f"a bug of Windlass ended the service ({named:.200}); its log says more, please report it"
            )
        self.failure = error
        self._become("failed")
        self._desk.fail_all(error)
