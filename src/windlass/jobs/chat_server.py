"""A server that speaks OpenAI's interface, as a chat asks it: its first model, and an answer that comes in pieces."""

import json
import re
import time
from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2

from windlass.errors import ModelError, ModelNotFound, NotReady, QueueFull, RequestError, UsageError
from windlass.jobs.retry_after import retry_after

# A server that is full or loads its model is asked so often at least, and for so many seconds. A wait may not be
# longer than those, and not so short that it would be asked for nothing.
ATTEMPTS, LONGEST_WAIT, SHORTEST_WAIT = 4, 20.0, 1.0
# Seconds to be let in. An answer may take minutes to begin, and a server in order says so or closes the connection.
TO_CONNECT = 10.0


class ChatServer:
    """At `url`, with or without /v1 at its end. Raises UsageError for what is no address."""

    def __init__(self, url: str, api_key: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        try:
            httpx2.URL(url)
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except (ValueError, httpx2.InvalidURL):  # a port that is no number, half an IPv6 address
            sound = False
        if not sound:
            raise UsageError(f"--url {url:.80} is no address; write it as http://127.0.0.1:8000")
        self.url, self._sleep = url.rstrip("/").removesuffix("/v1"), sleep
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        if any(not value.isascii() or not value.isprintable() for value in headers.values()):
            raise UsageError("the API key holds something other than printable ASCII; check --api-key")
        self._client = httpx2.Client(headers=headers, timeout=httpx2.Timeout(None, connect=TO_CONNECT))

    def first_model(self) -> str:
        """The first model that it names. Raises WindlassError."""
        try:
            response = self._client.get(f"{self.url}/v1/models")
            self._refuse_error(response)
            return str(response.json()["data"][0]["id"])
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, LookupError, TypeError) as error:
            raise ModelNotFound(
                f"{self.url} names no model at /v1/models; name one as MODEL, or check --url"
            ) from error

    def pieces(self, body: Mapping[str, Any]) -> Generator[dict[str, Any] | None, None, None]:
        """The chunks of an answer; None for a sign of life between them. Raises WindlassError.

        A server that has no room, or is not ready, is asked again when it said to, a few times and where that is soon.
        """
        attempts, waited = 0, 0.0
        while True:
            try:
                yield from self._asked(body)
                return
            except (QueueFull, NotReady) as error:
                attempts, wait = attempts + 1, max(error.retry_after, SHORTEST_WAIT)
                if wait > LONGEST_WAIT or (attempts >= ATTEMPTS and waited >= LONGEST_WAIT):
                    raise
                waited += wait
                self._sleep(wait)

    def state(self) -> object:
        """What a Windlass server tells of itself; None where this is another, or cannot be asked."""
        try:
            response = self._client.get(f"{self.url}/windlass/state", timeout=TO_CONNECT)
            return response.json() if response.status_code == httpx2.codes.OK else None
        except (httpx2.HTTPError, ValueError):
            return None

    def _asked(self, body: Mapping[str, Any]) -> Generator[dict[str, Any] | None, None, None]:
        try:
            with self._client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response:
                if response.status_code != httpx2.codes.OK:
                    response.read()
                self._refuse_error(response)
                for line in response.iter_lines():
                    if line.strip() == "data: [DONE]":
                        return
                    yield self._piece(line) if line.startswith("data:") else None
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        raise ModelError(f"{self.url} closed the connection inside its answer; ask again")

    def close(self) -> None:
        """Leaves it."""
        self._client.close()

    def __enter__(self) -> "ChatServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _piece(self, line: str) -> dict[str, Any]:
        try:
            piece = json.loads(line.removeprefix("data:"))
        except ValueError as error:
            raise ModelError(f"{self.url} sent {line!r:.60}, which is no JSON; check --url") from error
        if not _is_a_piece(piece):
            raise ModelError(f"{self.url} sent {line!r:.60}, which is no piece of an answer; check --url")
        if "error" in piece:
            raise ModelError(f"{self.url} broke its answer off: {_advised(_message(piece), 'ask again')}")
        said: dict[str, Any] = piece
        return said

    def _refuse_error(self, response: httpx2.Response) -> None:
        """Raises what an answer other than 200 means."""
        if response.status_code == httpx2.codes.OK:
            return
        try:
            said = _message(response.json())
        except ValueError:
            said = response.text.strip().splitlines()[0][:200] if response.text.strip() else response.reason_phrase
        match response.status_code:
            case 401 | 403:
                raise UsageError(f"{self.url} refuses the key: {said}; give another with --api-key or WINDLASS_API_KEY")
            case 404:
                raise ModelNotFound(f"{self.url} answers 404: {said}; check --url and the name of the model")
            case 429:
                after = retry_after(response.headers, unsaid=SHORTEST_WAIT)
                advised = _advised(said, f"ask again {after.told}")
                raise QueueFull(f"{self.url} takes no more questions now: {advised}", after.seconds)
            case 400 | 413 | 422:
                raise RequestError(f"{self.url} refuses the question: {said}; the message was not added")
            case 503:
                after = retry_after(response.headers)
                advised = _advised(said, f"ask again {after.told}")
                raise NotReady(f"{self.url} cannot answer now: {advised}", after.seconds)
            case code:
                raise ModelError(f"{self.url} answers {code}: {_advised(said, 'ask again later')}")

    def _unreachable(self, error: httpx2.HTTPError) -> ModelNotFound:
        return ModelNotFound(
            f"{self.url} cannot be reached: {str(error) or type(error).__name__}; start it with `windlass serve`, or "
            "check --url"
        )


def _is_a_piece(piece: Any) -> bool:
    if not isinstance(piece, dict) or not isinstance(piece.get("usage") or {}, dict):
        return False
    choices = piece.get("choices") or []
    return isinstance(choices, list) and all(
        isinstance(choice, dict)
        and isinstance(choice.get("delta") or {}, dict)
        and isinstance((choice.get("delta") or {}).get("content") or "", str)
        for choice in choices
    )


def _advised(said: str, advice: str) -> str:
    """With what to do, where the server has not said that itself."""
    return said if re.search(r"\b(again|retry)\b", said, re.IGNORECASE) else f"{said}; {advice}"


def _message(body: object) -> str:
    """What OpenAI's form of an error says; else all of it."""
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message).replace("\n", " ")[:300].rstrip(".")
