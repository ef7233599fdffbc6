"""A rate between two measured amounts lies between their rates; with less than the first, work takes no less time."""

import pytest

from windlass.facts.rate_curve import RateCurve

CURVE = RateCurve(((1, 10.0), (4, 40.0), (64, 160.0)))


def test_a_measured_amount_has_its_own_rate() -> None:
    assert [CURVE.at(amount) for amount, _ in CURVE.points] == pytest.approx([10.0, 40.0, 160.0])


def test_between_two_amounts_the_rate_is_their_geometric_mean_at_their_geometric_mean() -> None:
    assert CURVE.at(2) == pytest.approx(20.0)
    assert CURVE.at(16) == pytest.approx(80.0)


def test_outside_of_all_the_nearest_counts() -> None:
    assert CURVE.at(1000) == 160.0
    assert 0.5 / CURVE.at(0.5) == pytest.approx(1 / CURVE.at(1)), "half a row takes as long as one"


def test_no_points_are_no_rate() -> None:
    assert RateCurve(()).at(3) == 0.0 and RateCurve(()).best == 0.0
