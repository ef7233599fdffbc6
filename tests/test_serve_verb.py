"""`windlass serve` from the outside: what it says, what it refuses, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from server_world import PATIENCE, model_with_template
from windlass.cli.display import LogLines
from windlass.cli.main import app
from windlass.cli.serve_flags import ServeFlags
from windlass.errors import ModelError
from windlass.facts.progress import Progress
from windlass.jobs.service.desk import Desk
from windlass.jobs.service.limits import Limits
from windlass.server.doors.addresses import bound_socket
from windlass.server.doors.limits import ServerLimits

SOURCE = Path(__file__).resolve().parent.parent / "src"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_template(tmp_path_factory.mktemp("model") / "box")


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        (("--host", "0.0.0.0"), ("--host 0.0.0.0 lets other machines in", "--api-key", "--insecure")),
        (("--port", "70000"), ("--port 70000 is none", "65535")),
        (("--api-key", " "), ("--api-key holds no key",)),
        (("--max-num-seqs", "0"), ("--max-num-seqs: 0 is below 1",)),
        (("--max-body", "much"), ("'much' is not a size",)),
    ],
)
def test_misuse_is_one_line(
    arguments: tuple[str, ...], holds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WINDLASS_API_KEY", raising=False)
    ended = CliRunner().invoke(app, ["serve", "./none", *arguments])
    assert ended.exit_code == 2
    [line] = ended.stderr.splitlines()
    assert all(words in line for words in holds), line


def test_a_key_in_the_environment_opens_other_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_API_KEY", "sesame")
    ended = CliRunner().invoke(app, ["serve", "./none", "--host", "0.0.0.0", "--port", "0"])
    assert ended.exit_code == 1
    assert "there is no folder" in ended.stderr
    assert "sesame" not in ended.output


def test_a_port_that_is_taken_is_said_before_a_model_is_looked_for() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = CliRunner().invoke(app, ["serve", "./none", "--port", port])
    assert ended.exit_code == 2
    assert f"port {port}" in ended.stderr
    assert "name another --port" in ended.stderr


def test_until_the_model_is_opened_the_port_refuses_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a probe sees: nobody is made to wait before there is something that could answer."""
    listeners: list[socket.socket] = []

    def bound(host: str, port: int) -> socket.socket:
        listeners.append(bound_socket(host, port))
        return listeners[-1]

    def look(*_: object, **__: object) -> None:
        host, port = listeners[0].getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), PATIENCE)
        raise ModelError("seen")

    monkeypatch.setattr("windlass.cli.serve.bound_socket", bound)
    monkeypatch.setattr("windlass.cli.serve.opened", look)
    ended = CliRunner().invoke(app, ["serve", "./none", "--port", "0"])
    assert (ended.exit_code, ended.stderr) == (1, "error: seen\n")


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM"])
def test_a_signal_while_the_model_is_opened_ends_it_in_one_line(ending: str) -> None:
    program = (
        "import signal, sys\nfrom windlass.__main__ import main\nfrom windlass.cli import serve\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"serve.opened = lambda *_, **__: signal.raise_signal(signal.{ending})\n"
        "sys.argv = ['windlass', 'serve', './none', '--port', '0']\nmain()"
    )
    environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
    ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")


def test_defaults_of_flags_are_those_of_the_limits() -> None:
    flags = ServeFlags()
    assert flags.limits == ServerLimits()
    assert flags.service_limits(None) == Limits()


@pytest.mark.parametrize(
    ("ending", "name", "flags"),
    [(signal.SIGINT, "box", ("--served-model-name", "box")), (signal.SIGTERM, "llama", ())],
)
def test_it_says_where_it_listens_answers_and_ends_at_a_signal(
    model: Path, tmp_path: Path, ending: signal.Signals, name: str, flags: tuple[str, ...]
) -> None:
    """Without a name of its own a model is called by its last folder, and no client hears of the others."""
    path = tmp_path / "private" / "llama"
    path.parent.mkdir()
    path.symlink_to(model)
    command = [
        sys.executable, "-m", "windlass", "serve", str(path), "--port", "0", "--json", *flags, "--jobs",
        str(path.parent / "jobs"), "--interactive-reserve", "64", "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE), "WINDLASS_API_KEY": "sesame"}
    with subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        told = json.loads(process.stdout.readline())
        assert (told["model"], told["state"]) == (name, "ready")
        headers = {"Authorization": "Bearer sesame"}
        with httpx2.Client(base_url=told["url"], headers=headers, timeout=PATIENCE) as http:
            answer = http.post("/v1/completions", json={"prompt": "O", "max_tokens": 2, "model": name})
            assert (answer.status_code, answer.json()["model"]) == (200, name)
            given = http.post("/v1/completions", json={"prompt": "O", "max_tokens": 2, "model": str(path)})
            assert given.status_code == (404 if flags else 200), (
                "the path as given is the model's name unless it has one"
            )
            assert http.get("/v1/batches").json()["data"] == []
            assert http.get("/v1/models").json()["data"][0]["id"] == name
            wrong = http.post("/v1/completions", json={"prompt": "O", "model": "other"})
            assert wrong.status_code == 404 and f"this server has '{name}'" in wrong.text
            for place in ("/v1/models", "/windlass/state", "/metrics", "/health", "/docs", "/v1/files"):
                assert "private" not in http.get(place).text
        process.send_signal(ending)
        out, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert f"{told['url']}/v1" in said
    assert "curl " in said
    assert "stopping after the pass in flight" in said
    assert "Traceback" not in said
    assert "sesame" not in said
    assert "progress" not in said and len(said.splitlines()) < 12, "a log for people where there is no terminal"


def test_a_budget_that_is_too_small_ends_it_with_the_reason(model: Path) -> None:
    command = [sys.executable, "-m", "windlass", "serve", str(model), "--port", "0", "-q", "--host-memory", "1MiB"]
    environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
    ended = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    [*_, line] = ended.stderr.splitlines()
    assert "the budget is 1.00 MiB" in line
    assert "Traceback" not in ended.stderr


def test_ctrl_c_while_it_loads_ends_it_after_the_part_at_hand(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parts: list[int] = []
    closing = threading.Event()
    close = Desk.close

    def hear(self: Desk) -> None:
        close(self)
        closing.set()

    def press(self: LogLines, event: Progress) -> None:
        parts.append(event.done)
        signal.raise_signal(signal.SIGINT)
        assert closing.wait(60)

    monkeypatch.setattr(Desk, "close", hear)
    monkeypatch.setattr(LogLines, "on_progress", press)
    ended = CliRunner().invoke(app, ["serve", str(model), "--port", "0", "--json"])
    assert (ended.exit_code, ended.stdout) == (130, ""), ended.output
    assert len(parts) == 1 and "Traceback" not in capfd.readouterr().err
