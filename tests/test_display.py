"""Progress is bars on a terminal and JSON lines elsewhere, every figure beside its limit, and never in the results."""

import io
import json
import math
import re
import sys
from contextlib import closing
from typing import Any

import pytest
from rich.console import Console

from windlass.cli.bars import Bars
from windlass.cli.display import BeginAndLog, LogLines, display
from windlass.cli.progress_text import disk_text, done_text, json_line, left_text, memory_text, speed_text
from windlass.facts.progress import Progress
from windlass.units import GIB


def event(phase: str = "decode", **changes: Any) -> Progress:
    fields = {
        "done": 412, "total": 1024, "seconds": 10.0, "tokens_per_second": 3.21, "disk_rate": 1.92e9,
        "disk_limit": 2.41e9, "memory": int(1.2 * GIB), "memory_budget": 4 * GIB, "seconds_left": 125.0,
        "sequences": 32,
    }  # fmt: skip
    return Progress(phase, **(fields | changes))


def bars(width: int) -> tuple[Bars, io.StringIO]:
    screen = io.StringIO()
    return Bars(Console(file=screen, force_terminal=True, width=width)), screen


def shown(screen: io.StringIO) -> str:
    """What was drawn, without the codes that move the cursor and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


def test_figures_stand_beside_their_limits() -> None:
    assert disk_text(event()) == "disk 1.92 of 2.41 GB/s"
    assert disk_text(event(disk_rate=5e8)) == "disk 500 MB/s of 2.41 GB/s"
    assert disk_text(event(disk_limit=0.0)) == "disk 1.92 GB/s"
    assert memory_text(event()) == "mem 1.20 of 4.00 GiB"
    assert speed_text(event()) == "3.21 tok/s"
    assert left_text(event()) == "2 min 05 s left"


def test_loading_counts_bytes_and_the_other_phases_tokens() -> None:
    assert done_text(event("load", done=1_200_000_000, total=6_030_000_000)) == "1.20 of 6.03 GB"
    assert done_text(event()) == "412/1024"


def test_what_is_not_known_is_not_shown() -> None:
    unknown = event(tokens_per_second=0.0, disk_rate=0.0, seconds_left=math.inf)
    assert [disk_text(unknown), speed_text(unknown), left_text(unknown)] == ["", "", ""]


def test_a_step_is_one_line_of_json_with_every_field() -> None:
    found = json.loads(json_line(event(seconds_left=math.inf)))
    assert found["event"] == "progress"
    assert (found["phase"], found["done"], found["sequences"]) == ("decode", 412, 32)
    assert found["seconds_left"] is None


def test_a_terminal_shows_a_bar_for_each_phase() -> None:
    screen, out = bars(120)
    for phase in ("load", "prefill", "decode"):
        screen.on_progress(event(phase))
    screen.close()
    last = shown(out).splitlines()[-3:]
    assert [line.split()[0] for line in last] == ["load", "prefill", "decode"]
    assert "412/1024  3.21 tok/s  2 min 05 s left  disk 1.92 of 2.41 GB/s  mem 1.20 of 4.00 GiB" in last[2]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_shows_fewer_figures_and_breaks_no_line(width: int) -> None:
    screen, out = bars(width)
    screen.on_progress(event())
    screen.close()
    assert all(len(line) <= width for line in shown(out).splitlines())
    assert "412/1024" in shown(out)


def test_a_phase_that_another_follows_is_shown_complete() -> None:
    screen, out = bars(120)
    screen.on_progress(event("prefill", done=1000))
    screen.on_progress(event("decode"))
    screen.close()
    assert "1024/1024" in shown(out)


def test_a_closed_display_never_draws_through_an_answer() -> None:
    screen, out = bars(120)
    screen.on_progress(event())
    screen.close()
    before = out.getvalue()
    screen.on_progress(event(done=500))
    assert out.getvalue() == before


def test_no_event_draws_nothing() -> None:
    screen, out = bars(120)
    screen.close()
    assert out.getvalue() == ""


def test_away_from_a_terminal_steps_are_json_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with display(quiet=False) as screen:
        screen.on_progress(event())
        screen.say(["memory   1 GiB", "bound by the disk"])
    out, err = capsys.readouterr()
    assert out == ""
    first, *rest = err.splitlines()
    assert json.loads(first)["done"] == 412
    assert rest == ["memory   1 GiB", "bound by the disk"]


def test_on_a_terminal_the_bars_are_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with display(quiet=False) as screen:
        assert isinstance(screen, Bars)


def test_a_log_has_a_few_lines_for_people_however_often_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    log = LogLines(lambda: now)
    for done in range(1, 1001):
        now += 0.025  # 25 s of loading
        log.on_progress(event("load", done=done * 10**6, total=10**9))
    log.on_progress(event("pack", done=1, total=4))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and [line.split()[0] for line in lines] == ["load"] * 4 + ["pack"]
    assert lines[0].startswith("load     1.00 MB of 1.00 GB, disk 1.92 of 2.41 GB/s, mem 1.20 of 4.00 GiB")
    assert lines[3].startswith("load     1.00 of 1.00 GB")


def test_a_log_is_for_what_is_no_terminal_and_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(BeginAndLog(quiet=False)) as screen:
        screen.on_progress(event())
    assert "{" not in capsys.readouterr().err
    with closing(BeginAndLog(quiet=True)) as screen:
        screen.on_progress(event())
        screen.has_begun()
        screen.on_progress(event())
    assert capsys.readouterr().err == ""


def test_bars_of_a_beginning_end_with_it_and_a_log_follows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, out = bars(120)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("windlass.cli.bars.on_standard_error", lambda passing: drawn)
    with closing(BeginAndLog(quiet=False)) as screen:
        screen.on_progress(event("load", done=10**9, total=10**9))
        screen.has_begun()
        before = out.getvalue()
        assert before.rindex("\x1b[?25l") < before.rindex("\x1b[?25h"), "the cursor is there again"
        screen.on_progress(event("load", done=10**6, total=10**9))  # loaded anew after an error of the machine
    assert out.getvalue() == before
    assert capsys.readouterr().err.startswith("load     1.00 MB of 1.00 GB")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with display(quiet=True) as screen:
        screen.on_progress(event())
        screen.say(["anything"])
    assert capsys.readouterr() == ("", "")
