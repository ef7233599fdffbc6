"""How far a job has come, in rows: what it says while it runs is measured from where this process took it up."""

from dataclasses import replace

import pytest

from windlass.cli.progress_text import done_text, left_text
from windlass.facts.progress import Progress
from windlass.jobs.batch.meter import Meter

PASS = Progress("decode", 5, 40, 1.0, 12.5, 2e9, 2.5e9, 100, 200, 3.0, 8)


class Told:
    """A display, and the clock of a person who watches it."""

    def __init__(self) -> None:
        self.events: list[Progress] = []
        self.now = 1000.0
        self.meter = Meter(self.events.append, lambda: self.now)


@pytest.fixture
def told() -> Told:
    return Told()


def test_time_left_goes_by_the_rows_of_this_process_alone(told: Told) -> None:
    told.meter.begin(rows=100, refused=2, total=200)
    told.now += 500  # loading is not the pace of the job
    told.meter.expect(seconds=90.0)
    told.now += 20
    told.meter.finished(answered=10, refused=0, tokens=40)
    now = told.meter.progress
    assert (now.rows, now.total, now.tokens, now.rate) == (110, 200, 40, 2.0)
    assert (now.left, now.forecast) == (180.0, 90.0)


def test_a_model_that_is_loaded_again_on_the_way_changes_no_count(told: Told) -> None:
    told.meter.begin(rows=0, refused=0, total=10)
    told.meter.expect(seconds=50.0)
    told.now += 10
    told.meter.finished(answered=2, refused=0, tokens=8)
    told.meter.expect(seconds=70.0)
    now = told.meter.progress
    assert (now.tokens, now.seconds, now.left, now.forecast) == (8, 10.0, 40.0, 80.0)


def test_before_the_first_row_the_forecast_says_what_is_left(told: Told) -> None:
    told.meter.begin(rows=0, refused=0, total=10)
    assert told.meter.progress.left is None
    told.meter.expect(seconds=90.0)
    told.now += 30
    assert told.meter.progress.left == 60.0


def test_an_input_that_was_not_counted_leaves_the_time_open(told: Told) -> None:
    told.meter.begin(rows=0, refused=0, total=None)
    told.meter.finished(answered=3, refused=0, tokens=9)
    told.now += 5
    assert (told.meter.progress.total, told.meter.progress.left) == (None, None)


def test_passes_are_told_as_rows_with_their_speeds_and_loading_as_it_is(told: Told) -> None:
    told.meter.begin(rows=4, refused=0, total=10)
    told.meter.expect(seconds=60.0)
    told.now += 10
    told.meter.finished(answered=2, refused=0, tokens=5)
    loading = replace(PASS, phase="load")
    told.meter.on_engine(loading)
    told.meter.on_engine(PASS)
    first, second = told.events
    assert first == loading
    assert (second.phase, second.done, second.total) == ("rows", 6, 10)
    assert (second.tokens_per_second, second.disk_rate, second.disk_limit) == (12.5, 2e9, 2.5e9)
    assert (done_text(second), left_text(second)) == ("6/10", "20.0 s left (1 min 00 s forecast)")
