"""`windlass chat` as a person meets it: a real process behind a pseudo-terminal, keys in, what the screen shows out."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints import byte_llama
from terminal_world import Terminal
from windlass.facts.conversation import Conversation

CTRL_D, UP = b"\x04", b"\x1b[A"
PROMPT, GOES_ON = b">>> ", b"... "
# More tokens than a pseudo-terminal holds bytes: an answer that nobody reads waits, and does not end by itself.
TOKENS = 12_000


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
    started = Terminal(
        ["-m", "windlass", "chat", model, "--max-tokens", str(TOKENS), "--temperature", "0", "--quiet"], cache
    )
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
