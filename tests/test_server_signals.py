"""Signals are heard while the main thread is busy, and only there and as long as somebody listens."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from windlass.server.listening.signals import Signals

SOURCE = Path(__file__).parents[1] / "src"
PATIENCE = 60

BUSY = """
import hashlib, os, signal, sys, threading
from windlass.server.listening.signals import Signals
heard = threading.Event()
def hear():
    os.write(1, b"heard\\n")
    os._exit(7)
with Signals(hear):
    os.write(1, b"busy\\n")
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)  # one step of the interpreter, which takes minutes
"""


def test_it_is_heard_within_one_long_step_of_the_main_thread() -> None:
    environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen([sys.executable, "-c", BUSY], env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[0] == "heard\n"
    assert process.returncode == 7


SERVING = """
import hashlib, os, threading
from windlass.server.doors.addresses import bound_socket
from windlass.server.listening.listening import Listening
from windlass.server.listening.signals import Signals
async def app(scope, receive, send):
    pass
passes = threading.Event()
listening = Listening(app, bound_socket("127.0.0.1", 0), passes.wait)  # what it stops ends after the pass, which lasts
with Signals(listening.interrupt):
    listening.start()
    os.write(1, b"busy\\n")
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
"""


def test_the_second_one_leaves_a_pass_in_the_middle() -> None:
    environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", SERVING]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"busy\n"
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() + process.stderr.readline() == (
            b"\nstopping after the pass in flight (or the part that is loaded now); once more stops at once\n"
        )
        assert process.poll() is None, "the pass goes on"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 130


def test_each_is_heard_and_none_once_it_is_left() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    heard = threading.Semaphore(0)
    other = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with Signals(heard.release):
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
                signal.raise_signal(number)
            assert heard.acquire(timeout=PATIENCE) and heard.acquire(timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, other)
    assert not heard.acquire(blocking=False)
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_it_leaves_the_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def enter() -> None:
        with Signals(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
