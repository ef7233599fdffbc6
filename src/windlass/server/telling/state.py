"""What a server says of itself: whether it is well, which version it is, how it stands, and numbers for Prometheus."""

from collections.abc import Iterator
from typing import Any, Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from windlass import __version__
from windlass.server.errors.api_error import unavailable
from windlass.server.errors.error_body import LOOKING, errors
from windlass.server.errors.what_broke import what_broke
from windlass.server.served import Served


class Health(BaseModel):
    """200 means that questions are answered."""

    status: Literal["ready"] = "ready"


class Version(BaseModel):
    """Of Windlass."""

    version: str


class State(BaseModel):
    """How the machine stands; docs/serving.md says what each part holds. Bytes, seconds and rates are plain numbers."""

    model_config = ConfigDict(extra="allow")

    model: str
    state: Literal["loading", "ready", "failed", "closed"]
    version: str
    uptime: float


class Gauges(Collector):
    """Reads the service when Prometheus asks."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """Now."""
        view = self._served.service.view()
        queue, speed = view.queue, view.speed
        told: dict[str, tuple[str, float]] = {
            "windlass_requests_running": ("Sequences in the model.", queue.running),
            "windlass_requests_waiting": ("Questions that wait.", queue.waiting),
            "windlass_places": ("Sequences that there is room for.", queue.places),
            "windlass_queue_capacity": ("Questions that may wait.", queue.capacity),
            "windlass_kv_pages_used": ("Pages of keys and values in use.", queue.pages_used),
            "windlass_kv_pages": ("Pages of keys and values.", queue.pages),
            "windlass_tokens_per_second": ("Tokens generated per second, lately.", speed.tokens_per_second),
            "windlass_ready": ("1 while questions are answered.", float(view.state == "ready")),
        }
        for name, (meaning, value) in told.items():
            yield GaugeMetricFamily(name, meaning, value=value)
        yield CounterMetricFamily(
            "windlass_prompt_tokens", "Tokens of prompts that were read.", value=speed.prompt_tokens
        )
        yield CounterMetricFamily(
            "windlass_generated_tokens", "Tokens that were generated.", value=speed.generated_tokens
        )
        rates = GaugeMetricFamily(
            "windlass_link_bytes_per_second", "Rate of a link in the last passes.", labels=["link"]
        )
        for link in view.links:
            rates.add_metric([link.name], link.rate)
        yield rates


def telling_routes(served: Served, registry: CollectorRegistry) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["tell"])
    registry.register(Gauges(served))

    @router.get("/health", responses=errors(403, 503))
    async def health() -> Health:
        """Whether questions are answered. Needs no key."""
        if served.service.state != "ready":
            failure = served.service.failure
            why = "wait for it" if failure is None else what_broke(failure)
            raise unavailable(f"the model is {served.service.state}: {why}")
        return Health()

    @router.get("/version", responses=LOOKING)
    async def version() -> Version:
        """Of the program."""
        return Version(version=__version__)

    @router.get("/windlass/state", responses=LOOKING | {200: {"model": State}}, response_model=None)
    async def state() -> dict[str, Any]:
        """Where the bytes are, what binds, who waits."""
        return state_of(served)

    @router.get(
        "/metrics",
        responses=LOOKING | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def state_of(served: Served) -> dict[str, Any]:
    """The state as JSON. `failure` is None while nothing has failed."""
    told: dict[str, Any] = served.service.view().as_dict()
    failure = served.service.failure
    return told | {
        "model": served.model,
        "failure": None if failure is None else what_broke(failure),
        "takes_batches": served.batches is not None,
        "jobs": served.batches.told() if served.batches is not None else [],
    }
