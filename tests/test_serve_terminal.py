"""`windlass serve` on a terminal: a bar while the model is loaded, and a screen left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terminal_world import CTRL_C, Terminal
from windlass.packaged_model import packaged_model_folder

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
SERVE = ["serve", str(packaged_model_folder()), "--port", "0", "--device", "cpu"]
# The first bar that is drawn stands for minutes, within one step of the interpreter.
LOADS_LONG = """
import hashlib, sys
from windlass.__main__ import main
from windlass.cli.bars import Bars
draw = Bars.on_progress
def draw_and_stay(bars, event):
    draw(bars, event)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
Bars.on_progress = draw_and_stay
main()
"""


@contextmanager
def terminal(arguments: list[str], cache: Path) -> Iterator[Terminal]:
    started = Terminal(arguments, cache, kind="xterm")
    try:
        yield started
    finally:
        started.stop()


def test_the_bar_ends_with_the_load(own_cache: Path) -> None:
    with terminal(["-m", "windlass", *SERVE], own_cache) as screen:
        shown = screen.until(b"Ctrl-C ends it")
        screen.press(CTRL_C)
        rest, code = screen.rest()
    assert code == 130
    before, after = (shown + rest).split("ready    the model is loaded; Ctrl-C ends it")
    assert before.rindex(HIDDEN) < before.rindex(SHOWN)
    assert "stopping after the pass in flight" in after
    assert "\x1b" not in after, "nothing is drawn any more"


def test_who_leaves_a_load_at_once_has_the_cursor_back(own_cache: Path) -> None:
    with terminal(["-c", LOADS_LONG, *SERVE], own_cache) as screen:
        shown = screen.until(HIDDEN.encode())
        screen.press(CTRL_C)
        shown += screen.until(b"once more stops at once")
        screen.press(CTRL_C)
        rest, code = screen.rest()
    shown += rest
    assert code == 130
    assert shown.rindex(HIDDEN) < shown.rindex(SHOWN)
