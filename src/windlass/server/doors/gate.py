"""What every request passes before anything of it is read: whose server it means, where it comes from, and its key."""

from collections.abc import Set
from contextlib import ExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from windlass.server.doors.addresses import Addresses
from windlass.server.doors.keys import Keys
from windlass.server.errors.api_error import AUTHENTICATION, PERMISSION, ApiError
from windlass.server.errors.error_answers import error_response

_OPEN_PATHS = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""What tells nothing of anybody's work needs no key."""
_HOLDING = frozenset({
    "/v1/completions", "/v1/chat/completions", "/v1/files", "/v1/batches", "/tokenize", "/detokenize"
})  # fmt: skip
"""What has a body that is received and worked on, and so counts in the share of a key."""


class Gate:
    """ASGI middleware. `open_paths`: the files of the page, which need no key either."""

    def __init__(self, app: ASGIApp, addresses: Addresses, keys: Keys, open_paths: Set[str]) -> None:
        self._app, self._addresses, self._keys = app, addresses, keys
        self._open_paths = _OPEN_PATHS | open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with 401, 403 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with ExitStack() as stack:
            try:
                self._check_addresses(scope)
                holder = self._holder(scope)
                if scope["method"] == "POST" and scope["path"] in _HOLDING:
                    stack.enter_context(self._keys.working(holder))
            except ApiError as error:
                await error_response(error)(scope, receive, send)
                return
            await self._app(scope, receive, send)

    def _check_addresses(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not self._addresses.are_own(host):
            raise ApiError(
                403,
                f"the Host header is {host!r:.100}, no name of this server; call it by its number, or start it with "
                "--allowed-host NAME",
                PERMISSION,
            )
        if origin is not None and not self._addresses.allow(origin, host):
            raise ApiError(
                403, f"pages of {origin!r:.100} may not ask this server; open the page at {host}", PERMISSION
            )

    def _holder(self, scope: Scope) -> bytes:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        holder = self._keys.holder(given)
        if holder is not None:
            return holder
        if scope["path"] in self._open_paths:
            return b""
        said = "the API key is wrong" if given else "there is no API key"
        raise ApiError(
            401,
            f"{said}; send it as `Authorization: Bearer KEY`",
            AUTHENTICATION,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
