"""One thread that owns the model and answers who asks; when something of the machine breaks it starts again."""

import itertools
import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from windlass.engine.last_pass import LastPass
from windlass.engine.llm import LLM
from windlass.errors import InternalError, NotReady, RequestError, UsageError, WindlassError
from windlass.facts.plan import Plan
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.structured_outputs import StructuredOutputsParams
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

_A_FORM = SamplingParams(structured_outputs=StructuredOutputsParams(json_object=True))
"""With the first form of a process come tables over the vocabulary, a hundred megabytes and more, and plans count what
is there: they are made before the plan, so that a stranger's first schema takes next to nothing beyond the budget."""

State = Literal["loading", "ready", "failed", "closed"]


class Service:
    """Of one LLM, which nobody else may ask from now on. `version` is shown in the view.

    `state` is "loading" until the model is there, and again while it is loaded anew after an error of the machine
    (StorageError, BudgetError, DeviceError) or a bug of ours, with which what ran fails; what waited goes on. It is
    "failed" when the model cannot be loaded, or by a bug while nobody asked, and then `failure` says why. No ticket is
    left without an end.
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
        self._beginning, self._begun, self._gone = threading.Lock(), False, threading.Event()
        llm.record(self._last_pass)

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt and answer together."""
        longest = self.limits.longest(self._model_len)
        plan = self._plan
        return longest if plan is None else min(longest, plan.num_pages * plan.page_tokens + 1)

    @property
    def closing(self) -> bool:
        """Whether it was told to close."""
        return self._desk.closed

    @property
    def open_tickets(self) -> int:
        """Questions that have been taken and have not ended."""
        return self._desk.open_count()

    def start(self) -> None:
        """Begins to load the model in a thread of its own, and returns at once."""
        threading.Thread(target=self.run, name="windlass-service", daemon=True).start()

    def run(self) -> None:
        """Loads the model and answers in the thread that calls, until it is closed or fails. Raises nothing.

        The thread that opened the model is the fastest: OpenMP keeps a set of threads for each one that computes.
        """
        with self._beginning:
            if self._begun or self.state == "closed":
                return
            self._begun = True
        self._work()
        self._gone.set()

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
        """Stops after the pass in flight and frees the model; what is open fails. May be called twice.

        A load goes on to its end, unless whoever hears of its progress raises NotReady.
        """
        self._desk.close()
        with self._beginning:
            if not self._begun and self.state != "closed":
                self._become("closed")
                self.llm.close()
        if self._begun:
            self._gone.wait()

    def _refuse_unless_ready(self) -> None:
        if self.state == "loading":
            raise NotReady("the model is being loaded; ask again when it is ready")
        if self.state == "failed":
            raise NotReady(f"the service has failed: {self.failure}; see its log, and start it again") from self.failure
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
        """Until it is closed. Raises what a load raises, and a bug that nobody's question brought about."""
        with suppress(UsageError):  # a model, or an installation, that can hold no answer to a form
            self.llm.check(_A_FORM)
        plan = self._plan = self.llm.prepare(self._workload)
        while not self._desk.closed:
            self._become("ready")
            with Caught() as caught:
                for output in self.llm.serve(self._desk, self._workload):
                    self._desk.deliver(output)
            if caught.error is not None:
                self._load_anew(plan, caught.error)

    def _load_anew(self, plan: Plan, error: Exception) -> None:
        """What ran fails, so that a question that breaks the engine is not asked again."""
        told = _told(error)
        LOG.warning("the model is loaded anew: %s", told)
        self._become("loading")
        if not self._desk.fail_running(told) and told is not error:
            raise told from error
        # A process that has run holds a little more than one that has not: planned anew, it might not fit.
        self.llm.adopt(plan)
        self.llm.prepare(self._workload)

    def _ended(self, error: Exception | None) -> None:
        """Tells everybody, whatever it was that ended it."""
        if error is None or (isinstance(error, NotReady) and self._desk.closed):
            self._become("closed")
            self._desk.fail_all(NotReady("the service was closed before this was answered; ask again when it is back"))
            return
        self.failure = _told(error)
        LOG.error("the service has failed: %s", self.failure)
        self._become("failed")
        self._desk.fail_all(self.failure)


def _told(error: Exception) -> WindlassError:
    """What people are told of it: a bug goes to the log whole, and to them by its name."""
    if isinstance(error, WindlassError):
        return error
    LOG.critical("a bug of the service", exc_info=error)
    named = f"{type(error).__name__}: {error}"
    return InternalError(
        f"a bug of Windlass broke off what ran ({named:.200}); the log of the service says more, please report it"
    )
