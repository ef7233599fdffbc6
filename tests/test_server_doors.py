"""Who may ask a server, and how much: keys, names, origins, sizes, and shares that are full."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from server_world import KEY, MODEL, PATIENCE, Server, eventually, model_with_template, running
from windlass.errors import StorageError, UsageError, WindlassError
from windlass.jobs.service.limits import Limits
from windlass.server.doors.addresses import Addresses, bound_socket, is_loopback
from windlass.server.doors.keys import Keys
from windlass.server.doors.limits import ServerLimits
from windlass.server.errors.api_error import ApiError
from windlass.server.listening import connection

LONG: dict[str, Any] = {"model": MODEL, "prompt": "O", "max_tokens": 400, "extra_body": {"ignore_eos": True}}

LOCKED = [
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/windlass/state"),
    ("GET", "/metrics"),
    ("POST", "/tokenize"),
    ("GET", "/v1/files"),
    ("GET", "/no/path"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_template(tmp_path_factory.mktemp("model") / "box")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    """Of a single place; two may wait, and a key may have four requests in work."""
    limits = ServerLimits(max_body=4000, max_requests_per_key=4, keep_alive=0.05)
    with running(Server(model, limits=limits, service_limits=Limits(max_num_seqs=1, max_queue=2))) as started:
        yield started


@pytest.fixture
def held(server: Server) -> Iterator[Server]:
    """It answers nothing until it is told to, and nothing is left when a test is over."""
    server.held.stop()
    yield server
    server.held.go()
    eventually(lambda: server.station.service.open_tickets == 0)


@pytest.fixture
def streams(held: Server) -> Iterator[Callable[[], Any]]:
    """Begins long answers that are ended when the test is."""
    with held.client() as client, ExitStack() as stack:

        def begin() -> Any:
            stream: Any = client.completions.create(stream=True, **LONG)
            stack.callback(stream.close)
            return stream

        yield begin


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff"])
def test_without_the_right_key_nothing_is_told(server: Server, given: str) -> None:
    headers = {"Authorization": given.encode("latin-1")} if given else {}
    with httpx2.Client(base_url=server.url, timeout=PATIENCE) as http:
        for method, path in LOCKED:
            answer = http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), path
            assert answer.headers["www-authenticate"] == "Bearer"


def test_the_client_knows_its_key_is_wrong(server: Server) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="the API key is wrong"),
    ):
        client.models.list()


def test_health_the_page_and_the_interface_need_no_key(server: Server) -> None:
    with httpx2.Client(base_url=server.url, timeout=PATIENCE) as http:
        assert [http.get(path).status_code for path in ("/health", "/", "/docs", "/openapi.json")] == [200] * 4


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[", "127.0.0.1.nip.io"]
)
def test_a_name_that_is_not_its_own_is_refused(server: Server, host: str) -> None:
    with server.http(Host=host) as http:
        answer = http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000"])
def test_numbers_and_localhost_are_its_own(server: Server, host: str) -> None:
    with server.http(Host=host) as http:
        assert http.get("/v1/models").status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "http://["])
def test_a_foreign_page_is_refused_and_told_nothing_of_sharing(server: Server, origin: str) -> None:
    with server.http(Origin=origin) as http:
        answers = [
            http.get("/v1/models"),
            http.post("/v1/completions", json={"prompt": "O"}),
            http.options("/v1/models"),
        ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)


def test_its_own_page_is_not(server: Server) -> None:
    with server.http(Origin=server.url) as http:
        assert http.get("/v1/models").status_code == 200


def test_a_body_is_counted_while_it_comes_whatever_its_header_says(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(50):
            yield b"a" * 100
        yield b'"}'

    with server.http() as http:
        small = http.post("/v1/completions", json={"prompt": "a" * 100, "max_tokens": 1})
        known = http.post("/v1/completions", json={"prompt": "a" * 5000})
        streamed = http.post("/v1/completions", content=pieces(), headers={"Content-Type": "application/json"})
    assert small.status_code == 200
    for answer in (known, streamed):
        assert answer.status_code == 413
        assert "more than 3.91 KiB" in answer.json()["error"]["message"]


def test_a_body_that_stops_coming_is_given_up_and_leaves_its_share(model: Path) -> None:
    """Head and body go in one piece: between two of them a busy machine may make a pause of its own."""
    limits = ServerLimits(body_pause=0.1, max_requests_per_key=1)
    body = b'{"prompt": "O", "max_tokens": 1}'
    with running(Server(model, limits=limits)) as server:
        port = int(server.url.rpartition(":")[2])
        for sent, status in ((b"{", b"408"), (body, b"200")):
            with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as told:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall(head.encode() + sent)
                assert told.readline().split()[1] == status


@pytest.fixture
def narrow(model: Path) -> Iterator[Server]:
    """Two connections may be open, and headers must be whole in a third of a second."""
    limits = ServerLimits(head_pause=0.3, max_connections=2)
    with running(Server(model, limits=limits)) as server:
        yield server


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=PATIENCE)


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def answered(client: socket.socket) -> bytes:
    """The status of an answer that is read to its end."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    client.recv(int(head.lower().split(b"content-length: ")[1].split()[0]), socket.MSG_WAITALL)
    return head.split()[1]


def in_time(server: Server, sent: bytes) -> socket.socket:
    """A connection on which that was sent before its time was up, as a busy machine may not do at once."""
    while True:
        client = connected(server)
        with suppress(ConnectionError):
            client.sendall(sent)
            if client.recv(1, socket.MSG_PEEK):
                return client
        client.close()


def test_headers_that_do_not_come_are_given_up(narrow: Server) -> None:
    with connected(narrow) as silent:
        assert silent.recv(1) == b"", "closed without a word, as browsers expect of a connection that they keep ready"
    with in_time(narrow, GET) as slow:
        told = slow.makefile("rb").read()
    assert told.startswith(b"HTTP/1.1 408 ") and b"the headers were not whole within 0.3 s" in told


def test_a_byte_now_and_then_buys_no_time(narrow: Server) -> None:
    with connected(narrow) as slow:
        slow.settimeout(0.02)
        with suppress(ConnectionError):
            for _ in range(3000):
                slow.sendall(b"G")
                with suppress(TimeoutError):
                    slow.recv(1)
                    break
            else:
                pytest.fail("it was let go on for a minute")


def test_a_connection_that_is_kept_alive_may_rest_for_longer(narrow: Server) -> None:
    with in_time(narrow, GET + b"\r\n") as client:
        assert answered(client) == b"200"
        client.settimeout(0.9)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE)
        client.sendall(GET + b"\r\n")
        assert answered(client) == b"200"
        client.sendall(GET)  # the next one's headers have their time too
        assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 408"


def test_a_newcomer_has_the_place_of_the_connection_that_waits_longest(model: Path) -> None:
    limits = ServerLimits(max_connections=2)
    with (
        running(Server(model, limits=limits)) as server,
        connected(server) as first,
        connected(server) as second,
    ):
        for client in (second, first):
            client.sendall(GET + b"\r\n")
            assert answered(client) == b"200"
        with connected(server) as third:
            third.sendall(GET + b"\r\n")
            assert answered(third) == b"200"
        with pytest.raises(ConnectionError):
            if not second.recv(1):
                raise ConnectionResetError
        first.sendall(GET + b"\r\n")
        assert answered(first) == b"200"


POST = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
POST += "Content-Type: application/json\r\n"


def posted(body: dict[str, Any]) -> bytes:
    sent = json.dumps(body).encode()
    return f"{POST}Content-Length: {len(sent)}\r\n\r\n".encode() + sent


@pytest.fixture
def full(model: Path) -> Iterator[Server]:
    """Two connections may be open, and both have a request in work for as long as the test."""
    server = Server(model, limits=ServerLimits(max_connections=2, keep_alive=0.05, head_pause=PATIENCE))
    server.held.stop()
    with running(server), connected(server) as first, connected(server) as second:
        for client in (first, second):
            client.sendall(posted({"prompt": "O", "max_tokens": 9, "stream": True}))
            assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        yield server


def connections(server: Server) -> set[Any]:
    return server.station.listening._server.server_state.connections


def test_where_every_connection_has_a_request_in_work_the_next_is_told_so(full: Server) -> None:
    with connected(full) as third:
        told = third.makefile("rb").read()
    assert told.startswith(b"HTTP/1.1 503 ") and b"retry-after" in told.lower()
    assert b"2 connections have a request in work" in told


def test_and_so_is_whoever_has_sent_a_request_already_or_goes_on_sending(full: Server) -> None:
    """Bytes that a socket has not read when it is closed take the answer from the client."""
    go_on = threading.Event()
    next(iter(connections(full))).loop.call_soon_threadsafe(go_on.wait, PATIENCE)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(full)) for _ in range(9)]
        for client in clients:
            client.sendall(posted({"prompt": "O"}))
        go_on.set()
        slow = stack.enter_context(connected(full))
        assert slow.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) == b"HTTP/1.1 503"
        slow.sendall(posted({"prompt": "O" * 9_000_000}))
        for client in (*clients, slow):
            assert client.makefile("rb").read().startswith(b"HTTP/1.1 503 ")
    eventually(lambda: len(connections(full)) == 2)


def test_who_is_refused_and_stays_makes_room_for_the_next(full: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LEAVING", 3)
    with ExitStack() as stack:
        for _ in range(9):
            client = stack.enter_context(connected(full))
            assert client.makefile("rb").read().startswith(b"HTTP/1.1 503 ")
        eventually(lambda: len(connections(full)) == 2 + 3)


def test_who_is_refused_may_not_stay_for_ever(narrow: Server) -> None:
    with in_time(narrow, b"nonsense\r\n\r\n") as client:
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 400 ")
        eventually(lambda: not connections(narrow))


NO_HTTP = {
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "a negative length": f"{POST}Content-Length: -1\r\n\r\n".encode(),
    "a bad chunk": f"{POST}Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n".encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "endless headers": GET + b"A: " + b"a" * 99_999,
    "nonsense": b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_what_is_no_http_is_told_so_in_the_form_of_all_errors(
    server: Server, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(server) as client:
        client.sendall(sent)
        told = HTTPResponse(client)
        told.begin()
        body = json.loads(told.read())
        assert client.recv(1) == b"", "and nothing comes after it"
    assert (told.status, told.headers["content-type"]) == (400, "application/json")
    assert body["error"]["type"] == "invalid_request_error" and "is no HTTP/1.1: " in body["error"]["message"]
    eventually(lambda: not server.station.listening._server.server_state.tasks)
    assert caplog.records == []


def test_a_body_that_goes_wrong_after_its_answer_gets_no_second_one(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(server) as client:
        client.sendall(f"{POST.replace(KEY, 'wrong')}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert answered(client) == b"401"
        client.sendall(b"nonsense\r\n")
        assert client.recv(1) == b""
    assert caplog.records == []


def test_a_share_counts_uploads_and_not_looks(model: Path, tmp_path: Path) -> None:
    limits = ServerLimits(max_requests_per_key=1)
    with running(Server(model, tmp_path / "jobs", limits=limits)) as server:
        head = f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        with connected(server) as sender, server.http() as http:
            sender.sendall(
                f"{head}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 99\r\n\r\n".encode()
            )
            eventually(lambda: http.post("/tokenize", json={"prompt": "O"}).status_code == 429)
            for path in ("/v1/files", "/v1/batches", "/v1/completions"):
                assert http.post(path, json={}).status_code == 429, path
            assert http.get("/v1/files").status_code == http.get("/windlass/state").status_code == 200
        with server.http() as http:
            eventually(lambda: http.post("/tokenize", json={"prompt": "O"}).status_code == 200)


def test_a_client_that_goes_is_no_bug(held: Server, caplog: pytest.LogCaptureFixture) -> None:
    with connected(held) as client:
        ask = json.dumps({"prompt": "O", "max_tokens": 9}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(ask)}\r\n\r\n"
        client.sendall(head.encode() + ask)
        eventually(lambda: held.station.service.open_tickets == 1)
    eventually(lambda: held.station.service.open_tickets == 0)
    with connected(held) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 400"
    with held.http() as http:
        assert http.get("/health").status_code == 200, "and what went before is over"
    assert caplog.records == []


def test_a_silent_stream_says_that_it_is_there(held: Server) -> None:
    body = {"prompt": "O", "max_tokens": 3, "stream": True}
    with held.http() as http, http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": keep-alive"
        held.held.go()
        rest = list(lines)
    assert rest[-2:] == ["data: [DONE]", ""]


def test_a_full_queue_is_429_with_the_time_to_come_again(held: Server, streams: Callable[[], Any]) -> None:
    for waiting in (0, 1, 2):
        streams()
        eventually(lambda waiting=waiting: held.station.service.view().queue.waiting == waiting)
    refused = pytest.raises(openai.RateLimitError, match="2 questions wait, 2 may")
    with held.client() as client, refused as caught:
        client.completions.create(**LONG)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "rate_limit_exceeded"


def test_of_a_request_of_many_prompts_all_are_taken_or_none(held: Server) -> None:
    with held.client() as client, pytest.raises(openai.RateLimitError):
        client.completions.create(model=MODEL, prompt=["O"] * 9)
    assert held.station.service.open_tickets == 0


def test_a_key_has_its_share_and_no_more() -> None:
    keys = Keys([KEY, "another"], 1)
    mine, other = keys.holder(f"Bearer {KEY}".encode()), keys.holder(b"bearer another")
    assert mine is not None and other is not None
    with keys.working(mine), keys.working(other):
        with pytest.raises(ApiError, match="this key has 1 requests in work") as caught, keys.working(mine):
            pass
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
    with keys.working(mine):
        pass


def test_a_client_that_goes_away_frees_its_place(held: Server, streams: Callable[[], Any]) -> None:
    first = streams()
    eventually(lambda: held.station.service.open_tickets == 1)
    first.close()
    eventually(lambda: held.station.service.open_tickets == 0)


def test_so_does_one_that_waits_for_a_whole_answer(held: Server) -> None:
    async def ask_and_go() -> None:
        async with held.async_client() as client:
            asked = asyncio.create_task(client.completions.create(**LONG))
            while held.station.service.open_tickets == 0:
                await asyncio.sleep(0.01)
            asked.cancel()

    asyncio.run(ask_and_go())
    eventually(lambda: held.station.service.open_tickets == 0)


def test_what_is_not_loaded_yet_is_503(model: Path) -> None:
    server = Server(model)

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app=server.station.app)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(transport=transport, base_url=server.url, headers=headers) as http:
            asked = await http.post("/v1/completions", json={"prompt": "O"})
            return [asked, await http.get("/health"), await http.get("/windlass/state"), await http.get("/metrics")]

    asked, health, state, metrics = asyncio.run(ask())
    server.discard()
    assert (asked.status_code, health.status_code) == (503, 503)
    assert "the model is being loaded" in asked.json()["error"]["message"]
    assert "retry-after" in asked.headers
    assert (state.status_code, state.json()["state"], metrics.status_code) == (200, "loading", 200)


def test_a_bug_is_500_and_nobody_is_to_ask_it_again(model: Path) -> None:
    server = Server(model)
    asked = list[object]()

    def breaks(*arguments: Any) -> Iterator[Any]:
        yield from ()
        while (request := arguments[0].next(True)) is not None:
            asked.append(request)
            raise ZeroDivisionError("division by /home/private")

    server.llm.serve = breaks
    with running(server), OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError, match="a bug of the server broke it off") as caught:
            client.completions.create(**LONG)
        assert (caught.value.status_code, len(asked)) == (500, 1), "OpenAI's client would ask three times"
        assert "private" not in str(caught.value)


@pytest.mark.parametrize("field", ["response_format", "structured_outputs"])
def test_a_form_that_cannot_be_followed_is_400_with_its_field(server: Server, field: str) -> None:
    schema = {"not": {"type": "string"}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"prompt": "O", field: form if field == "response_format" else {"json": schema}}
    with server.http() as http:
        answer = http.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert "the JSON schema cannot be followed" in answer.json()["error"]["message"]


def test_what_breaks_is_told_by_its_kind_and_the_log_has_the_rest(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(model)
    broken = StorageError("/home/private/model.safetensors cannot be read at byte 0; look at the disk")

    def breaks(*arguments: Any) -> Iterator[Any]:
        yield from ()
        if server.station.service.open_tickets:
            raise broken
        arguments[0].next(True)
        raise broken

    def run() -> None:
        with pytest.raises(WindlassError, match="/home/private"):  # whoever started it hears it all
            server.station.run(server._ready.set)

    server.llm.serve, server._thread = breaks, threading.Thread(target=run)
    with running(server), server.http() as http:
        asked = http.post("/v1/completions", json={"prompt": "O"})
        eventually(lambda: http.get("/health").status_code == 200)

        def gone(*_: Any) -> None:
            raise broken

        server.llm.prepare = gone
        lost = http.post("/v1/completions", json={"prompt": "O"})
        eventually(lambda: server.station.service.state == "failed")
        later = [http.post("/v1/completions", json={"prompt": "O"}), http.get("/health"), http.get("/windlass/state")]
    for answer in (asked, lost, *later):
        assert "private" not in answer.text and "a disk of the server failed (its log says more)" in answer.text
    assert [answer.status_code for answer in (asked, lost, *later)] == [503, 503, 503, 503, 200]
    assert any("/home/private" in record.getMessage() for record in caplog.records)


def test_a_stream_that_the_service_leaves_ends_with_an_error(model: Path) -> None:
    server = Server(model).start()
    server.held.stop()
    with server.client() as client:
        stream = client.completions.create(stream=True, **LONG)
        eventually(lambda: server.station.service.open_tickets == 1)
        server.station.listening.end()
        eventually(lambda: server.station.service._desk.closed)
        server.held.go()
        with pytest.raises(openai.APIError, match="the service was closed before this was answered"):
            for _ in stream:
                pass
    server.stop()


def test_a_port_that_is_taken_is_said_before_anything_else() -> None:
    with bound_socket("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1 port {port}: .* name another --port"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(UsageError, match="is no address of this machine"):
        bound_socket("no.such.name.invalid", 0)


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.0.2", False),
        ("a.b", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, loops: bool) -> None:
    assert is_loopback(host) == loops


def test_a_name_that_was_allowed_is_its_own() -> None:
    addresses = Addresses(["API.example.org"])
    assert addresses.are_own("api.example.org:443")
    assert not addresses.are_own("example.org")
    assert addresses.allow("https://api.example.org", "api.example.org")


def test_keys_are_kept_as_fingerprints_only() -> None:
    assert KEY.encode() not in repr(vars(Keys([KEY], 1))).encode()
