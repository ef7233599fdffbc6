"""Ctrl-C waits while libraries are imported, and is not lost."""

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

import windlass
from windlass.cli.held_signals import HeldSignals
from windlass.cli.late import late

# A library that hides what interrupted it, and cannot be imported again.
SWALLOWS = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    raise ImportError("cannot load module more than once per process")
whole = True
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own for Ctrl-C, whoever started the tests; afterwards what there was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_is_heard_when_a_library_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    monkeypatch.setattr(windlass, "__path__", [*windlass.__path__, str(tmp_path)])
    try:
        with pytest.raises(KeyboardInterrupt):
            late("swallows")
        assert sys.modules["windlass.swallows"].whole
    finally:
        sys.modules.pop("windlass.swallows", None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_handler_that_was_there_hears_of_it_once_and_is_there_again(number: signal.Signals) -> None:
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    signal.signal(number, hear)
    with HeldSignals():
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert heard == []
    assert heard == [number]
    assert signal.getsignal(number) is hear


@pytest.mark.parametrize("left", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_python_does_not_hear_is_left_alone(left: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, left)
    with HeldSignals():
        assert signal.getsignal(signal.SIGINT) is left


def test_nothing_is_held_in_another_thread() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with HeldSignals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
