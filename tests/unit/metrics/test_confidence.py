"""Bootstrap intervals against SciPy's, and what few or undefined values mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vol3d.errors import UsageError
from vol3d.metrics.confidence import bootstrap_interval, paired_difference

DICE = np.random.default_rng(7).normal(0.89, 0.02, size=26)


def test_interval_agrees_with_scipy_percentile_bootstrap() -> None:
    interval = bootstrap_interval(DICE)
    reference = stats.bootstrap((DICE,), np.mean, method="percentile", n_resamples=10_000, rng=1)
    # Both ends carry Monte Carlo noise of about a hundredth of the width.
    width = reference.confidence_interval.high - reference.confidence_interval.low
    assert interval.low == pytest.approx(reference.confidence_interval.low, abs=0.04 * width)
    assert interval.high == pytest.approx(reference.confidence_interval.high, abs=0.04 * width)
    assert interval.mean == pytest.approx(DICE.mean())


def test_interval_agrees_with_the_normal_approximation() -> None:
    interval = bootstrap_interval(DICE, confidence=0.95)
    half_width = 1.96 * DICE.std() / math.sqrt(len(DICE))
    assert interval.high - interval.low == pytest.approx(2 * half_width, rel=0.05)


def test_the_same_values_give_the_same_interval_and_another_seed_a_close_one() -> None:
    assert bootstrap_interval(DICE) == bootstrap_interval(DICE)
    assert bootstrap_interval(DICE, seed=1) != bootstrap_interval(DICE)


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    narrow, wide = bootstrap_interval(DICE, confidence=0.5), bootstrap_interval(DICE, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_undefined_and_infinite_values_are_left_out_and_counted() -> None:
    with_gaps = bootstrap_interval([*DICE, math.nan, math.inf])
    plain = bootstrap_interval(DICE)
    assert (with_gaps.mean, with_gaps.low, with_gaps.high) == (plain.mean, plain.low, plain.high)
    assert (with_gaps.num_cases, with_gaps.num_left_out) == (26, 2)


def test_one_case_has_a_mean_and_no_interval() -> None:
    interval = bootstrap_interval([0.9])
    assert interval.mean == 0.9
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.as_dict() == {"mean": 0.9, "low": None, "high": None, "num_cases": 1, "num_left_out": 0}


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_defined_value_has_no_mean(values: list[float]) -> None:
    interval = bootstrap_interval(values)
    assert math.isnan(interval.mean)
    assert (interval.num_cases, interval.num_left_out) == (0, len(values))


def test_equal_values_have_an_interval_of_no_width() -> None:
    interval = bootstrap_interval([0.5] * 4)
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


def test_mean_of_a_table_is_over_cases_then_over_classes() -> None:
    table = [[0.8, 0.6], [1.0, math.nan], [math.nan, math.nan]]
    interval = bootstrap_interval(table)
    assert interval.mean == pytest.approx((0.9 + 0.6) / 2)
    assert (interval.num_cases, interval.num_left_out) == (2, 1)
    # The second case alone has no second class: the resamples are (.8, .6), (1,) and the mixed (.9, .6).
    assert (interval.low, interval.high) == (pytest.approx(0.7), pytest.approx(1.0))


def test_interval_of_a_full_table_equals_that_of_the_case_means() -> None:
    table = np.random.default_rng(0).uniform(size=(12, 3))
    by_table, by_case = bootstrap_interval(table), bootstrap_interval(table.mean(axis=1))
    assert by_table.low == pytest.approx(by_case.low)
    assert by_table.high == pytest.approx(by_case.high)


def test_resampling_in_blocks_is_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = bootstrap_interval(DICE, num_resamples=1000)
    monkeypatch.setattr("vol3d.metrics.confidence.BLOCK_ELEMENTS", 26 * 100)
    assert bootstrap_interval(DICE, num_resamples=1000) == at_once


def test_pairing_shows_a_small_difference_that_unpaired_intervals_hide() -> None:
    better = DICE + 0.002 + np.random.default_rng(1).normal(0, 0.001, size=DICE.size)
    difference = paired_difference(better, DICE)
    assert difference.mean == pytest.approx(float(np.mean(better - DICE)))
    assert difference.low > 0
    assert bootstrap_interval(better).low < bootstrap_interval(DICE).high


def test_a_pair_with_an_undefined_side_is_left_out() -> None:
    difference = paired_difference([0.9, math.nan, 0.8, math.inf], [0.8, 0.5, math.nan, math.inf])
    assert difference.mean == pytest.approx(0.1)
    assert (difference.num_cases, difference.num_left_out) == (1, 3)


def test_scores_of_different_cases_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got \(2,\) against \(3,\)"):
        paired_difference([1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 1.0}, "confidence must lie between 0 and 1, got 1.0"),
        ({"confidence": 95}, "got 95"),
        ({"num_resamples": 0}, "num_resamples must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bootstrap_interval(DICE, **arguments)  # type: ignore[arg-type]


def test_values_with_three_axes_are_refused() -> None:
    with pytest.raises(UsageError, match="values must have 1 or 2 axes, got 3"):
        bootstrap_interval(np.zeros((2, 2, 2)))
