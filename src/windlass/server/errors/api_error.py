"""What goes wrong with a request, as OpenAI's clients expect to be told."""

from collections.abc import Mapping
from types import MappingProxyType

INVALID, AUTHENTICATION, PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
RATE_LIMIT, UNAVAILABLE, SERVER = "rate_limit_error", "service_unavailable_error", "server_error"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ApiError(Exception):
    """`status` is HTTP's, `kind` one of the words above, `param` the field at fault and `code` a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.headers = param, code, headers

    def body(self) -> dict[str, object]:
        """The JSON of it."""
        told = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400."""
    return ApiError(400, message, INVALID, param, code)


def not_found(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """404."""
    return ApiError(404, message, INVALID, param, code)


def retry_later(message: str, seconds: float) -> ApiError:
    """429, with the whole seconds after which to ask again."""
    headers = {"Retry-After": str(max(1, round(seconds)))}
    return ApiError(429, message, RATE_LIMIT, code="rate_limit_exceeded", headers=headers)


def unavailable(message: str, seconds: float = 1.0) -> ApiError:
    """503, while a model loads or after it failed."""
    return ApiError(503, message, UNAVAILABLE, headers={"Retry-After": str(max(1, round(seconds)))})


def our_bug(message: str) -> ApiError:
    """500. OpenAI's clients ask again after one unless they are told that it would break again."""
    return ApiError(500, message, SERVER, headers={"x-should-retry": "false"})
