"""Every exception of a request as an answer in OpenAI's form; 500 is left for bugs and shows nothing of them."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from windlass.errors import InternalError, NotReady, QueueFull, Unavailable, UsageError, WindlassError
from windlass.server.errors.api_error import INVALID, ApiError, bad_request, our_bug, retry_later, unavailable
from windlass.server.errors.hung_up import HungUp
from windlass.server.errors.what_broke import what_broke

LOG = logging.getLogger("windlass")


def error_response(error: ApiError) -> Response:
    """As JSON in ASCII, since a message may repeat half a character of the question."""
    content = json.dumps(error.body()).encode()
    return Response(content, error.status, dict(error.headers), "application/json")


def api_error(error: WindlassError) -> ApiError:
    """An error of the tree as the client is told it: what is wrong with the question whole, what is wrong here not."""
    if isinstance(error, QueueFull):
        return retry_later(str(error), error.retry_after)
    if isinstance(error, NotReady):
        cause = error.__cause__
        return unavailable(f"the service has failed: {what_broke(cause)}" if cause is not None else str(error))
    if isinstance(error, UsageError):
        return bad_request(str(error))
    if isinstance(error, InternalError):
        return our_bug(what_broke(error))
    return unavailable(f"{what_broke(error)}; ask again later")


def tell_errors(app: FastAPI) -> None:
    """Installs it."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(WindlassError, _on_windlass_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(HungUp, _on_hung_up)
    app.add_exception_handler(Exception, _on_bug)


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_windlass_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, WindlassError)
    if not isinstance(error, UsageError | Unavailable):
        LOG.warning("%s %s: %s", request.method, request.url.path, error)
    return error_response(api_error(error))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(_invalid(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: f"there is no {request.url.path!r:.200}; see /docs for what there is",
        405: f"{request.url.path!r:.200} takes no {request.method}; see /docs for what there is",
    }
    message = messages.get(error.status_code, str(error.detail))
    return error_response(ApiError(error.status_code, message, INVALID, headers=error.headers or {}))


async def _on_hung_up(request: Request, error: Exception) -> Response:
    """Nobody is there to read it, and nothing is wrong."""
    return Response(status_code=204)


async def _on_bug(request: Request, error: Exception) -> Response:
    LOG.error("a bug of the server, in %s %s", request.method, request.url.path, exc_info=error)
    message = "the server met a bug of its own; its standard error says more"
    return error_response(our_bug(message))


def _invalid(error: RequestValidationError) -> ApiError:
    """The first thing wrong; of what a union of forms may say, that of the form which came furthest."""
    found: Sequence[Mapping[str, Any]] = error.errors()
    first = found[0]["loc"][:2]
    worst = max((each for each in found if each["loc"][:2] == first), key=_came_to)
    # Of what is no JSON at all, the place is that of a character and not of a field.
    param = "" if worst["type"] == "json_invalid" else _param(worst["loc"], error.body)
    told = "" if worst["type"] in ("missing", "json_invalid") else f", got {worst['input']!r:.60}"
    message = str(worst["msg"]).removeprefix("Value error, ")
    if worst["type"] == "json_invalid":
        message = f"the body is not JSON: {worst['ctx']['error']}"
    elif isinstance(error.body, bytes) or (not param and worst["type"] == "missing"):
        message, told = "the body must be a JSON object, sent with `Content-Type: application/json`", ""
    return bad_request(f"{param}: {message}{told}" if param else f"{message}{told}", param or None)


def _came_to(found: Mapping[str, Any]) -> tuple[int, bool]:
    """How far a form came: a list that is too long was a list, and not a text that is none."""
    return len(found["loc"]), not str(found["type"]).endswith("_type")


def _param(loc: Sequence[str | int], body: Any) -> str:
    """`messages[0].content` of a place as pydantic names it, without its names for the forms of a union."""
    name, here = "", body
    for step in loc[1:]:
        if isinstance(step, int) and isinstance(here, list):
            name, here = f"{name}[{step}]", here[step] if step < len(here) else None
        elif isinstance(step, str) and isinstance(here, Mapping) and step in here:
            name, here = f"{name}.{step}".lstrip("."), here[step]
        elif isinstance(step, str) and step.isidentifier() and isinstance(here, Mapping) and step == loc[-1]:
            name = f"{name}.{step}".lstrip(".")
        elif len(loc) == 2 and not isinstance(here, Mapping):
            name = str(step)
    return name
