"""The server as one ASGI application."""

from collections.abc import Iterable

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from windlass import __version__
from windlass.server.batches.files import file_routes
from windlass.server.batches.routes import batch_routes
from windlass.server.chats.routes import chat_routes
from windlass.server.completions.routes import completion_routes
from windlass.server.doors.addresses import Addresses
from windlass.server.doors.body_limit import BodyLimit
from windlass.server.doors.gate import Gate
from windlass.server.doors.keys import Keys
from windlass.server.errors.error_answers import tell_errors
from windlass.server.page_files import add_page, built_page
from windlass.server.served import Served
from windlass.server.telling.docs_page import add_docs
from windlass.server.telling.models import model_routes
from windlass.server.telling.state import telling_routes
from windlass.server.telling.tokens import token_routes

_TEXT = "A language model that may be larger than memory, behind OpenAI's interface."


def create_app(
    served: Served, registry: CollectorRegistry, keys: Iterable[str] = (), allowed_hosts: Iterable[str] = ()
) -> FastAPI:
    """Without `keys` everybody who reaches it may ask; `allowed_hosts` are names that it answers to beside numbers."""
    # The pages of FastAPI load scripts from another host; telling/docs_page.py is in their place.
    app = FastAPI(title="Windlass", version=__version__, description=_TEXT, docs_url=None, redoc_url=None)
    tell_errors(app)
    for router in (
        model_routes(served),
        completion_routes(served),
        chat_routes(served),
        file_routes(served),
        batch_routes(served),
        token_routes(served),
        telling_routes(served, registry),
    ):
        app.include_router(router)
    page = built_page()
    add_page(app, page)
    add_docs(app)
    # The last to be added is the first to be passed.
    app.add_middleware(BodyLimit, limits=served.limits)
    app.add_middleware(
        Gate,
        addresses=Addresses(allowed_hosts),
        keys=Keys(keys, served.limits.max_requests_per_key),
        open_paths=frozenset(f"/{path}" for path in page),
    )
    return app
