"""The form of every answer that is an error, for the OpenAPI document."""

from typing import Any

from pydantic import BaseModel


class ErrorFacts(BaseModel):
    """What went wrong; `param` is the field at fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """OpenAI's form of an error."""

    error: ErrorFacts


_MEANINGS = {
    400: "The request makes no sense; `param` names the field.",
    401: "No API key, or not the right one.",
    403: "A foreign Host or Origin header.",
    404: "There is no such model, file, batch or path.",
    409: "It cannot be done in the state that it is in.",
    413: "The body is larger than the server takes.",
    429: "The queue or the share of this key is full; `Retry-After` says when to ask again.",
    503: "The model is loading, or has failed.",
}

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    """What a route may answer beside its own answer. `default` keeps FastAPI's 422, which never comes, out."""
    told: Responses = {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}
    return told | {"default": {"model": ErrorBody, "description": "A bug of the server, without a traceback."}}


ASKING = errors(400, 401, 403, 404, 413, 429, 503)
"""For a route that asks the model."""
LOOKING = errors(401, 403)
"""For a route that only tells."""
