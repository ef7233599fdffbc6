"""`windlass serve`: a model behind OpenAI's interface, for any client, and a page that shows it at work."""

import importlib.util
import json
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import typer

from windlass.cli.boxed_model import boxed_model
from windlass.cli.budget_flags import BudgetFlags, MaybeModelName
from windlass.cli.display import BeginAndLog
from windlass.cli.exits import INTERRUPTED, terminated_as_interrupted
from windlass.cli.late import late
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.serve_flags import ServeFlags
from windlass.errors import NotReady, UsageError
from windlass.facts.model_name import public_name
from windlass.facts.progress import Progress
from windlass.server.doors.addresses import bound_socket, url_of

EXAMPLES = (
    "windlass serve ./model --host-memory 24GiB --gpu-memory 8GiB",
    "WINDLASS_API_KEY=secret windlass serve org/name --host 0.0.0.0 --jobs ./jobs",
    "windlass serve",
)

_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def serve(
    server: ServeFlags,
    output: OutputFlags,
    budget: BudgetFlags,
    model: MaybeModelName = None,
) -> None:
    """Answer OpenAI's clients over HTTP.

    It listens on loopback; from another machine a key is needed. Ctrl-C ends it after the pass in flight. Questions go
    before batches, which --jobs takes and goes on with after a restart. The page is at /, the interface at /docs.
    """
    _require_server()
    name = model or boxed_model()
    with (
        terminated_as_interrupted(),
        bound_socket(server.host, server.port) as listener,
        closing(BeginAndLog(output.quiet)) as screen,
    ):
        station: Any = None

        def on_progress(event: Progress) -> None:
            if event.phase == "load" and station is not None and station.service.closing:
                raise NotReady("stopped while the model was being loaded")
            if event.phase not in ("prefill", "decode"):  # a server passes for ever
                screen.on_progress(event)

        with opened(name, budget, on_progress, interactive_reserve=server.interactive_reserve) as llm:
            stations = late("server.station")
            url, called = url_of(listener), server.served_model_name or _public_name(model)
            station = stations.Station(
                llm,
                called,
                listener,
                server.service_limits(budget.max_model_len),
                server.limits,
                stations.Doors(server.keys, server.hosts),
                _orders(server, budget, llm, name, called),
                also=None if server.served_model_name else model,
            )
            screen.say(_lines(url, called, bool(server.keys)))
            if station.run(lambda: _tell_ready(url, called, output, screen)):
                raise typer.Exit(INTERRUPTED)


def _orders(server: ServeFlags, budget: BudgetFlags, llm: Any, name: str, called: str) -> Any:
    """Where batches are kept and what their answers depend on; None without --jobs.

    Clients are told how a batch's model changed, so it has the name that they know.
    """
    if server.jobs is None:
        return None
    formats = {
        "quantization": budget.quantization,
        "kv_cache_dtype": budget.kv_cache_dtype,
        "seed": budget.seed,
    }
    defaults = llm.default_sampling_params
    identity = late("jobs.batch.begin").identity_of(llm, name, budget.revision, formats, defaults)
    return late("server.station").BatchOrders(server.jobs, replace(identity, model=called), budget.seed)


def _public_name(model: str | None) -> str:
    """Of the model named, or of the one in the box."""
    return public_name(model) if model is not None else str(late("packaged_model").NAME)


def _lines(url: str, model: str, needs_key: bool) -> list[str]:
    """Where it listens, and one line that asks it."""
    body = json.dumps({"model": model, "prompt": "Once upon a time", "max_tokens": 16})
    key = " -H 'Authorization: Bearer KEY'" if needs_key else ""
    return [
        f"serves   {url}/v1 (the page: {url}/, the interface: {url}/docs)",
        f"try      curl {url}/v1/completions -H 'Content-Type: application/json'{key} -d '{body}'",
    ]


def _tell_ready(url: str, model: str, output: OutputFlags, screen: BeginAndLog) -> None:
    screen.has_begun()
    screen.say(["ready    the model is loaded; Ctrl-C ends it"])
    if output.json:
        sys.stdout.write(json.dumps({"url": url, "model": model, "state": "ready"}) + "\n")
        sys.stdout.flush()


def _require_server() -> None:
    """Raises UsageError where what a server needs is not installed."""
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(f"windlass serve needs {absent[0]}, which is not installed; pip install 'windlass[serve]'")
