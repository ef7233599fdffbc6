"""A hub on the loopback: one repository, and the part of the real one's interface that downloads and headers use."""

import hashlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import close_session, constants

NAME = "org/tiny"
# A test that hangs fails after so many seconds; no other test depends on it.
PATIENCE = 300


class Repository:
    """One model on the hub: its files, and how it answers.

    `gets` counts the files that were sent and `sent` their bytes; without `ranges` every file is sent whole.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"config.json": b"{}", "model.safetensors": b"w" * 5000}
        self.status, self.error_code = 200, ""
        self.broken: set[str] = set()
        self.ranges = True
        self.gets: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted((name, self.etag(name)) for name in self.files)).encode()).hexdigest()

    def etag(self, name: str) -> str:
        """Large files are known by their sha256, small ones by their git hash, as on the hub."""
        content = self.files[name]
        if name.endswith(".safetensors"):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def info(self) -> dict[str, Any]:
        return {"id": NAME, "sha": self.commit, "siblings": [self._sibling(name) for name in self.files]}

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": len(self.files[name]), "oid": self.etag(name)} for name in self.files
        ]

    def _sibling(self, name: str) -> dict[str, Any]:
        size = len(self.files[name])
        entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": self.etag(name)}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"sha256": self.etag(name), "size": size, "pointerSize": 130}
        return entry


class Hub(ThreadingHTTPServer):
    """What it has sent and nobody has read is little, whatever the system would hold for it."""

    request_queue_size = 64

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        super().server_bind()


class Exchange(BaseHTTPRequestHandler):
    """One request: `/api/models/ID[/revision/R]`, `/api/models/ID/tree/R` or `/ID/resolve/R/FILE`."""

    protocol_version = "HTTP/1.1"
    repository: Repository

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at the repository's counter."""

    def _answer(self, with_body: bool) -> None:
        path = urlsplit(self.path).path
        if path.startswith(f"/api/models/{NAME}"):
            self._answer_listing(path.removeprefix(f"/api/models/{NAME}"))
        elif path.startswith(f"/{NAME}/resolve/"):
            self._answer_file(path.removeprefix(f"/{NAME}/resolve/").split("/", 1)[1], with_body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _answer_listing(self, rest: str) -> None:
        revision = rest.rpartition("/")[2] or "main"
        if revision not in ("main", self.repository.commit):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        listing = self.repository.tree() if rest.startswith("/tree/") else self.repository.info()
        self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _answer_file(self, name: str, with_body: bool) -> None:
        repository = self.repository
        if repository.status != 200:
            self._send(repository.status, b"", {"X-Error-Code": repository.error_code})
            return
        if with_body and name in repository.broken:
            self._send(500, b"", {})
            return
        etag, content = repository.etag(name), repository.files[name]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repository.commit, "X-Linked-Size": str(len(content))}
        repository.gets[name] += with_body
        status, asked = 200, self.headers.get("Range", "")
        if repository.ranges and asked.startswith("bytes=0-"):
            last = min(int(asked.removeprefix("bytes=0-")), len(content) - 1)
            headers["Content-Range"] = f"bytes 0-{last}/{len(content)}"
            status, content = 206, content[: last + 1]
        headers["X-Linked-Etag"] = f'"{etag}"'
        self._send(status, content, headers, with_body, name)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True, file: str = "") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self._write(body, file)

    def _write(self, body: bytes, file: str) -> None:
        """In parts that are counted before they go, so that what has arrived has been counted."""
        for start in range(0, len(body), 65536):
            part = body[start : start + 65536]
            self.repository.sent[file] += len(part)
            try:
                self.wfile.write(part)
            except OSError:  # the other side has read enough and hung up
                self.close_connection = True
                return


def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A hub with one repository, and an empty cache. `stop()` takes it off the network."""
    repository = Repository()
    server = Hub(("127.0.0.1", 0), type("Exchanged", (Exchange,), {"repository": repository}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    endpoint, cache = f"http://127.0.0.1:{server.server_port}", tmp_path / "home" / "hub"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, PATIENCE)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    close_session()

    def stop() -> None:
        close_session()
        server.shutdown()
        thread.join()
        server.server_close()

    yield SimpleNamespace(repository=repository, stop=stop, endpoint=endpoint, cache=cache)
    stop()
