"""`windlass chat` as a person meets it: a real process behind a pseudo-terminal, keys in, what the screen shows out."""

import os
import pty
import select
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints import byte_llama
from windlass.facts.conversation import Conversation

SOURCE = Path(__file__).resolve().parent.parent / "src"
CTRL_C, CTRL_D, UP = b"\x03", b"\x04", b"\x1b[A"
PROMPT, GOES_ON = b">>> ", b"... "
# Seconds without a word after which Ctrl-C is pressed again, and after which a test has failed.
UNHEARD, STUCK = 20.0, 300.0
# More tokens than a pseudo-terminal holds bytes: an answer that nobody reads waits, and does not end by itself.
TOKENS = 12_000
# Makes the pseudo-terminal the one that Ctrl-C of the process comes from, and becomes the program.
BEGIN = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A chat behind a pseudo-terminal. Reads wait until what is asked for has come; where nothing comes they fail."""

    def __init__(self, arguments: list[str], cache: Path) -> None:
        environ = dict(os.environ) | {
            "PYTHONPATH": str(SOURCE), "WINDLASS_CACHE": str(cache), "TERM": "dumb", "COLUMNS": "100",
        }  # fmt: skip
        self._file, inside = pty.openpty()
        command = [sys.executable, "-c", BEGIN, "-m", "windlass", "chat", *arguments]
        # Not by pty.fork: what a process with threads runs between fork and exec may hang.
        self._process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True, env=environ
        )
        os.close(inside)

    def until(self, mark: bytes) -> str:
        """What the screen shows up to and with `mark`."""
        shown = b""
        while mark not in shown:
            piece = self._read()
            assert piece, f"the chat ended before it showed {mark!r}: {shown!r}"
            shown += piece
        return shown.decode(errors="replace")  # the last piece may end in the middle of a character

    def press(self, keys: bytes) -> None:
        os.write(self._file, keys)

    def interrupt(self) -> None:
        """Ctrl-C, until it is heard: Python misses one that comes between readline's last character and its waiting."""
        self.press(CTRL_C)
        while not self._has_more(UNHEARD):
            self.press(CTRL_C)

    def say(self, line: str, mark: bytes = PROMPT) -> str:
        """Types a line and reads to the next prompt."""
        self.press(line.encode() + b"\n")
        return self.until(mark)

    def ended(self) -> int:
        """The exit code, once all is read."""
        while self._read():
            continue
        return self._process.wait(STUCK)

    def stop(self) -> None:
        """Ends the process if it has not ended yet."""
        self._process.kill()
        self._process.wait()
        os.close(self._file)

    def _has_more(self, seconds: float) -> bool:
        return bool(select.select([self._file], [], [], seconds)[0])

    def _read(self) -> bytes:
        assert self._has_more(STUCK), f"the chat has said nothing for {STUCK:.0f} s"
        try:
            return os.read(self._file, 4096)
        except OSError:  # on Linux the end of a pseudo-terminal is an error
            return b""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of 64 dimensions whose tokens are bytes, and whose answers do not end soon."""
    return byte_llama(tmp_path_factory.mktemp("models") / "tiny", 16_384)


@pytest.fixture
def cache(own_cache: Path) -> Path:
    """The cache of all tests, where the verdict on the architecture may lie already, without a history of chats."""
    (own_cache / "chat_history").unlink(missing_ok=True)
    return own_cache


@pytest.fixture
def terminal(model: str, cache: Path) -> Iterator[Terminal]:
    started = Terminal([model, "--max-tokens", str(TOKENS), "--temperature", "0", "--quiet"], cache)
    try:
        started.until(PROMPT)
        yield started
    finally:
        started.stop()


@pytest.mark.slow
def test_a_conversation_from_the_first_key_to_the_last(terminal: Terminal, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"

    # Ctrl-C ends the answer, not the program; what was said so far stays.
    terminal.press(b"Once\n")
    terminal.until(b"Once\r\n")
    assert terminal._read()
    terminal.interrupt()
    terminal.until(PROMPT)
    terminal.say(f"/save {file}")
    ((question, answer),) = Conversation.from_json(file.read_text()).exchanges
    assert question == "Once" and 0 < len(answer) < TOKENS

    # An error is said and the conversation goes on.
    assert "error: /hlep is no command (did you mean /help)" in terminal.say("/hlep")

    # Ctrl-C in a message drops the message: the line at hand, or the lines before it.
    terminal.press(b"never sent")
    terminal.until(b"never sent")
    terminal.interrupt()
    terminal.until(PROMPT)
    terminal.say('"""never', GOES_ON)
    terminal.press(CTRL_D)
    terminal.until(PROMPT)

    # What was typed comes back with the arrow keys.
    terminal.press(UP + UP)
    terminal.until(b"/hlep")
    assert "did you mean /help" in terminal.say("")

    # Ctrl-C at an empty prompt leaves; the history is for its owner only.
    terminal.interrupt()
    assert terminal.ended() == 0
    history = cache / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert history.read_text().splitlines()[0] == "Once"


@pytest.mark.slow
def test_ctrl_d_at_an_empty_prompt_leaves(terminal: Terminal) -> None:
    terminal.press(CTRL_D)
    assert terminal.ended() == 0
