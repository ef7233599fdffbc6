"""A server on a free port of loopback, around the model in the box with a chat template, and OpenAI's own clients."""

import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI, OpenAI

from windlass import LLM
from windlass.facts.completion import RequestOutput
from windlass.facts.job_identity import JobIdentity
from windlass.facts.sampling_facts import sampling_facts
from windlass.jobs.service.limits import Limits
from windlass.packaged_model import packaged_model_folder
from windlass.server.doors.addresses import bound_socket, url_of
from windlass.server.doors.limits import ServerLimits
from windlass.server.station import BatchOrders, Doors, Station

MODEL, KEY = "box", "sesame"
# A test that hangs fails after so many seconds; no other test depends on it.
PATIENCE = 300.0
TEMPLATE = (
    "{% if tools %}Tools: {% for tool in tools %}{{ tool.function.name }} {% endfor %}\n{% endif %}"
    "{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{% for call in message.tool_calls or [] %}[{{ call.function.name }} {{ call.function.arguments | tojson }}]"
    "{% endfor %}"
    "\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def model_with_template(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A copy of the model in the box. It answers greedily where nobody says otherwise."""
    shutil.copytree(packaged_model_folder(), folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    return folder


class Held:
    """Stops the service before each output of the engine that it hands on, until it is told to go.

    An output is what a pass drew for one question. So many of them are let through by `allow`, and no more: however
    fast the service is and however slow the test, it stands between the same two.
    """

    def __init__(self, llm: LLM) -> None:
        self._serve, self._turn = llm.serve, threading.Condition()
        self._allowed = math.inf

    def serve(self, *arguments: Any) -> Iterator[RequestOutput]:
        for output in self._serve(*arguments):
            with self._turn:
                assert self._turn.wait_for(lambda: self._allowed > 0, PATIENCE)
                self._allowed -= 1
            yield output

    def stop(self) -> None:
        self.allow(0)

    def go(self) -> None:
        self.allow(math.inf)

    def allow(self, outputs: float) -> None:
        with self._turn:
            self._allowed = outputs
            self._turn.notify()


def eventually(holds: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


class Server:
    """A station that listens in a thread of its own; `held` can stop what it answers."""

    def __init__(
        self,
        model: Path,
        jobs: Path | None = None,
        keys: tuple[str, ...] = (KEY,),
        limits: ServerLimits | None = None,
        service_limits: Limits | None = None,
    ) -> None:
        self.llm = LLM(model, dtype="float32")
        self.held = Held(self.llm)
        self.llm.serve = self.held.serve
        orders = None
        if jobs is not None:
            defaults = self.llm.default_sampling_params
            identity = JobIdentity(str(model), {"model": "box"}, {"dtype": "float32"}, sampling_facts(defaults))
            orders = BatchOrders(jobs, identity, 0)
        with ExitStack() as stack:
            self._listener = stack.enter_context(bound_socket("127.0.0.1", 0))
            self.url = url_of(self._listener)
            self.station = Station(
                self.llm,
                MODEL,
                self._listener,
                service_limits or Limits(max_num_seqs=8),
                limits or ServerLimits(keep_alive=5.0),
                Doors(keys),
                orders,
            )
            stack.pop_all()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self.station.run, args=(self._ready.set,))

    def start(self) -> "Server":
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def stop(self) -> None:
        """What `held` has stopped goes on when the service takes nothing more, so that only the pass in flight ends."""
        self.station.listening.end()
        eventually(lambda: self.station.service._desk.closed)
        self.held.go()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def discard(self) -> None:
        """Of one that was never started."""
        self.station.service.close()
        self._listener.close()

    def client(self, **settings: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, **settings)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0)

    def http(self, **headers: str) -> httpx2.Client:
        """A plain client, with the key."""
        given = {"Authorization": f"Bearer {KEY}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.Client(base_url=self.url, headers=given, timeout=PATIENCE)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Started, and stopped in the end."""
    try:
        yield server.start()
    finally:
        server.stop()
