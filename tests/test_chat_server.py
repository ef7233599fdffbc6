"""`windlass chat --url`: a conversation with a server that speaks OpenAI's interface, played by a small one here."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from windlass.cli.main import app
from windlass.errors import (
    ModelError,
    ModelNotFound,
    NotReady,
    QueueFull,
    RequestError,
    Unavailable,
    UsageError,
    WindlassError,
)
from windlass.facts.chat_event import AnswerEnd, AnswerText, ChatEvent, Notice
from windlass.jobs.chat import Chat
from windlass.jobs.chat_server import LONGEST_WAIT, ChatServer
from windlass.jobs.remote_answerer import RemoteAnswerer


class Server(ThreadingHTTPServer):
    """Says `words` a piece at a time, or what `refusal` (status, headers, body) is; `bodies` is what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Door)
        self.words = ["He", "llo ", "日本"]
        self.refusal: tuple[int, dict[str, str], bytes] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.finish, self.breaks_off, self.goes_on = "stop", False, False
        self.gone = threading.Event()
        self.full_for = 0
        self.full: tuple[int, dict[str, str], bytes] = (429, {"Retry-After": "7"}, b'{"error": {"message": "full"}}')
        self.waits: list[float] = []
        self.state: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Door(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("Authorization"))
        if self.path == "/windlass/state":
            self._answer(200 if self.server.state else 404, {}, self.server.state or b"no")
        elif self.server.refusal is not None:
            self._answer(*self.server.refusal)
        else:
            self._answer(200, {}, json.dumps({"data": [{"id": "small"}, {"id": "big"}]}).encode())

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.server.full_for:
            self.server.full_for -= 1
            self._answer(*self.server.full)
            return
        if self.server.refusal is not None:
            self._answer(*self.server.refusal)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            self._stream()
        except OSError:  # the client may go at any write, the first ones included
            self.server.gone.set()

    def _stream(self) -> None:
        self._say(b": keep-alive\n\n")
        for word in self.server.words:
            self._send({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        while self.server.goes_on:
            self._send({"choices": [{"index": 0, "delta": {"content": "more "}, "finish_reason": None}]})
        if self.server.breaks_off:
            return
        self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": self.server.finish}]})
        self._send({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}})
        self._say(b"data: [DONE]\n\n")

    def _send(self, piece: dict[str, Any]) -> None:
        self._say(f"data: {json.dumps(piece)}\n\n".encode())

    def _say(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def door(server: Server) -> Iterator[ChatServer]:
    with closing(ChatServer(server.url, "secret", server.waits.append)) as door:
        yield door


def after(talk: Chat, *lines: str) -> list[ChatEvent]:
    """The events of the last line."""
    events: list[ChatEvent] = []
    for line in lines:
        events = list(talk.take(line))
    return events


def said(events: list[ChatEvent]) -> str:
    return "\n".join(line for event in events if isinstance(event, Notice) for line in event.lines)


def test_an_answer_comes_in_pieces_and_all_that_was_said_is_asked(server: Server, door: ChatServer) -> None:
    talk = Chat(RemoteAnswerer(door, None, {"max_tokens": 9, "temperature": 0.5}), "Be brief")
    assert talk.open() == (f"small at {server.url}",) and server.keys == ["Bearer secret"]
    events = after(talk, "Hi")
    assert [event.text for event in events if isinstance(event, AnswerText) and event.text] == server.words
    (end,) = [event for event in events if isinstance(event, AnswerEnd)]
    assert end.output is not None and end.output.finished and not end.stopped
    after(talk, "Why?")
    assert server.bodies[1] == {
        "model": "small", "max_tokens": 9, "temperature": 0.5, "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello 日本"},
            {"role": "user", "content": "Why?"},
        ],
    }  # fmt: skip
    assert f"context  8 tokens at {server.url}, 2 answer(s)" in said(after(talk, "/stats"))
    server.finish = "length"
    assert "cut by --max-tokens 9" in said(after(talk, "/clear", "Go"))


def test_commands_work_as_ever(server: Server, door: ChatServer, tmp_path: Path) -> None:
    talk, file = Chat(RemoteAnswerer(door, "big", {})), tmp_path / "talk.json"
    after(talk, "Hi", f"/save {file}", "/clear", f"/load {file}", "/system Short", "So?")
    assert [message["role"] for message in server.bodies[-1]["messages"]] == ["system", "user", "assistant", "user"]
    assert server.bodies[-1]["model"] == "big"


def test_an_answer_that_is_stopped_frees_its_place_on_the_server(server: Server, door: ChatServer) -> None:
    server.goes_on = True
    heard: list[str] = []
    talk = Chat(RemoteAnswerer(door, "small", {}), stopped=lambda: len(heard) > 3)
    for event in talk.take("Hi"):
        heard += [event.text] if isinstance(event, AnswerText) else []
    assert isinstance(event, Notice) and event.lines == ("stopped",)
    assert talk.conversation.exchanges == (("Hi", "".join(heard)),)
    assert server.gone.wait(300), "the server notices that nobody listens"


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        (
            (401, {}, b'{"error": {"message": "no such key."}}'),
            UsageError,
            "refuses the key: no such key; give another",
        ),
        ((429, {"Retry-After": "7"}, b'{"error": {"message": "full"}}'), QueueFull, "now: full; ask again in 7 s"),
        ((429, {}, b""), QueueFull, "Too Many Requests; ask again later"),
        ((404, {}, b"<html>\nno"), ModelNotFound, "answers 404: <html>; check --url and the name of the model"),
        ((400, {}, b'{"error": {"message": "too long"}}'), RequestError, "refuses the question: too long"),
        ((503, {}, b'{"error": {"message": "loading"}}'), NotReady, "cannot answer now: loading; ask again later"),
        ((503, {}, b'{"error": {"message": "broke; ask again."}}'), NotReady, "cannot answer now: broke; ask again$"),
        ((500, {}, b'{"error": {"message": "a bug"}}'), ModelError, "answers 500: a bug; ask again later"),
        ((200, {}, b"data: {nonsense\n\n"), ModelError, "which is no JSON; check --url"),
        ((200, {}, b'data: {"error": {"message": "oops"}}\n\n'), ModelError, "broke its answer off: oops; ask again"),
        ((200, {}, b'data: {"error": {"message": "No. Try again!"}}\n\n'), ModelError, "answer off: No. Try again!$"),
        ((200, {}, b'data: {"choices": [3]}'), ModelError, "which is no piece of an answer"),
        ((200, {}, b"hello"), ModelError, "closed the connection inside its answer"),
    ],
)
def test_what_the_server_refuses_is_a_line_and_leaves_the_conversation(
    server: Server, door: ChatServer, refusal: Any, kind: type[WindlassError], message: str
) -> None:
    talk = Chat(RemoteAnswerer(door, "small", {}))
    after(talk, "Hi")
    before, server.refusal = talk.conversation, refusal
    with pytest.raises(kind, match=message):
        after(talk, "Why?")
    assert talk.conversation == before
    server.refusal = None
    after(talk, "Why?")
    assert len(talk.conversation.exchanges) == 2


def test_a_server_that_is_full_is_asked_again_when_it_said(server: Server, door: ChatServer) -> None:
    talk, server.full_for = Chat(RemoteAnswerer(door, "small", {})), 3
    after(talk, "Hi")
    assert server.waits == [7.0, 7.0, 7.0] and len(server.bodies) == 4
    assert talk.conversation.exchanges == (("Hi", "Hello 日本"),)


def test_but_not_for_ever_and_not_where_it_would_take_long(server: Server, door: ChatServer) -> None:
    talk, server.full_for = Chat(RemoteAnswerer(door, "small", {})), 100
    with pytest.raises(QueueFull, match="ask again in 7 s"):
        after(talk, "Hi")
    assert server.waits == [7.0, 7.0, 7.0] and len(server.bodies) == 4
    server.full_for, server.refusal = 0, (429, {"Retry-After": "60"}, b"")
    with pytest.raises(QueueFull, match="ask again in 60 s"):
        after(talk, "Hi")
    assert len(server.waits) == 3 and len(server.bodies) == 5


DATED = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "2"}, 2.0),
        ({"Retry-After": "0"}, 1.0),
        (DATED | {"Retry-After": "Sun, 06 Nov 1994 08:49:42 GMT"}, 5.0),
        (DATED | {"Retry-After": "Sunday, 06-Nov-94 08:49:41 GMT"}, 4.0),
        (DATED | {"Retry-After": "Sun Nov  6 08:49:40 1994"}, 3.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:42 GMT"}, 1.0),  # by our clock it is over
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_so_is_one_that_loads_its_model_whether_it_said_seconds_or_a_date(
    server: Server, door: ChatServer, status: int, headers: dict[str, str], wait: float
) -> None:
    talk, server.full, server.full_for = Chat(RemoteAnswerer(door, "small", {})), (status, headers, b""), 3
    after(talk, "Hi")
    assert server.waits == [wait] * 3
    assert talk.conversation.exchanges == (("Hi", "Hello 日本"),)


def test_short_waits_are_many_but_not_for_ever(server: Server, door: ChatServer) -> None:
    server.full, server.full_for = (503, {"Retry-After": "1"}, b""), 100
    with pytest.raises(NotReady, match="ask again in 1 s"):
        after(Chat(RemoteAnswerer(door, "small", {})), "Hi")
    assert server.waits == [1.0] * round(LONGEST_WAIT)


@pytest.mark.parametrize(
    "said", ["soon", "-1", "\xb2", "1.5", "Sun, 06 Nov 1994 25:99:99 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"]
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_time_that_is_far_or_cannot_be_read_is_not_waited_for(
    server: Server, door: ChatServer, status: int, said: str
) -> None:
    server.refusal = (status, {"Retry-After": said}, b"")
    with pytest.raises(Unavailable, match="ask again (later|after Fri, 31 Dec 9999 23:59:59 GMT)$"):
        after(Chat(RemoteAnswerer(door, "small", {})), "Hi")
    assert server.waits == [] and len(server.bodies) == 1


def test_stats_are_what_the_server_tells_and_no_zeros(server: Server, door: ChatServer) -> None:
    talk = Chat(RemoteAnswerer(door, "small", {}))
    [context] = said(after(talk, "/stats")).splitlines()
    assert context.startswith("context ")
    lines = said(after(talk, "Hi", "Why?", "/stats")).splitlines()
    assert lines[1:] == ["tokens   10 read, 6 written, in 2 answer(s)"]
    part = {"kind": "weights", "bytes": 3 << 30, "used": 0}
    server.state = json.dumps({
        "speed": {"tokens_per_second": 12.5, "forecast": None}, "queue": {"running": 2, "waiting": 1},
        "tiers": [{"name": "host", "budget": 4 << 30, "parts": [part, {"kind": "free", "bytes": 1 << 30}]}],
        "binds": "the disk",
    }).encode()  # fmt: skip
    assert said(after(talk, "/stats")).splitlines()[2:] == [
        "speed    12.5 tok/s for all who ask, in the last passes",
        "queue    2 answered now, 1 wait",
        "memory   host 3.00 GiB of 4.00 GiB",
        "bound by the disk",
    ]


@pytest.mark.parametrize(
    "state", [b"[]", b"no JSON", b'{"speed": 3, "tiers": [{"name": 1}, 2], "queue": {"running": "x"}}']
)
def test_a_state_of_another_kind_tells_nothing(server: Server, door: ChatServer, state: bytes) -> None:
    server.state = state
    assert len(said(after(Chat(RemoteAnswerer(door, "small", {})), "/stats")).splitlines()) == 1


def test_an_answer_that_breaks_off_is_kept_as_far_as_it_came(server: Server, door: ChatServer) -> None:
    server.breaks_off = True
    talk = Chat(RemoteAnswerer(door, "small", {}))
    with pytest.raises(ModelError, match="closed the connection inside its answer; ask again"):
        after(talk, "Hi")
    assert talk.conversation.exchanges == (("Hi", "Hello 日本"),)


def chat(*arguments: str, given: str = "", **environment: str) -> Result:
    return CliRunner().invoke(app, ["chat", *arguments], input=given, env=environment)


class TestTheVerb:
    def test_answers_lines_from_a_pipe(self, server: Server) -> None:
        result = chat("--url", f"{server.url}/v1/", "-q", "--choice", "a,b", given="Hi\n", WINDLASS_API_KEY="mine")
        assert (result.exit_code, result.stdout) == (0, "Hello 日本\n"), result.output
        assert server.keys == ["Bearer mine"] and server.bodies[0]["structured_outputs"] == {"choice": ["a", "b"]}

    def test_ends_the_line_of_an_answer_that_breaks_off(self, server: Server) -> None:
        server.breaks_off = True
        result = chat("--url", server.url, "-q", given="Hi\nWhy?\n")
        assert (result.exit_code, result.stdout) == (1, "Hello 日本\n"), result.output
        assert "closed the connection inside its answer" in result.stderr

    def test_writes_answers_for_machines(self, server: Server) -> None:
        result = chat("big", "--url", server.url, "--json", "-q", "--api-key", "k", given="Hi\n")
        row = json.loads(result.stdout)
        assert (row["prompt"], row["text"], row["finish_reason"]) == ("Hi", "Hello 日本", "stop")
        assert row["report"] is None, "nothing was measured here"

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("--url", "http://127.0.0.1:1"), 1, "http://127.0.0.1:1 cannot be reached"),
            (("--url", "localhost:8000"), 2, "is no address; write it as http://127.0.0.1:8000"),
            (("--url", "http://[::1"), 2, "is no address"),
            (("--api-key", "k"), 2, "--api-key is for a server; name one with --url"),
            (
                ("--url", "http://127.0.0.1:1", "--host-memory", "4GiB"),
                2,
                "--host-memory is for a model in this process",
            ),
        ],
    )
    def test_says_in_a_line_what_is_wrong(self, arguments: tuple[str, ...], code: int, message: str) -> None:
        result = chat(*arguments, "-q")
        assert result.exit_code == code and message in result.stderr, result.output
        assert "Traceback" not in result.stderr and "\n" not in result.stderr.strip()
