"""Measures of answers, and how far chance may have moved them."""

from __future__ import annotations

import numpy as np
import pytest
from metrics import cents, edit_distance, mean, proportion, ratio, wilson


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_s_interval_is_that_of_the_literature(successes, count, low, high):
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


def test_wilson_s_interval_stays_between_none_and_all():
    low, high = wilson(20, 20)
    assert high == 1 and low == pytest.approx(1 - 0.1611, abs=5e-5)


def test_a_proportion_has_its_interval():
    found = proportion("right", np.array([True] * 15 + [False] * 133))
    assert found["right"] == 15 / 148 and found["right_interval"] == list(wilson(15, 148))


def test_a_mean_has_its_standard_error():
    assert mean(np.array([1.0, 3.0])) == (2, pytest.approx(1 / np.sqrt(2)))


def test_a_ratio_is_of_all_and_its_error_of_whole_samples():
    share, error = ratio(np.array([1, 1, 0]), np.array([2, 1, 0]))
    # Off the share by 1/3, 1/3 and 0.
    assert share == pytest.approx(2 / 3) and error == pytest.approx(np.sqrt(2) / 9)
    assert ratio(np.zeros(2), np.zeros(2)) == (None, None)


@pytest.mark.parametrize(
    ("some", "other", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0), ("flaw", "lawn", 2)],
)
def test_edits_are_the_fewest(some, other, edits):
    assert edit_distance(some, other) == edit_distance(other, some) == edits


def test_an_octave_has_1200_cents_and_a_semitone_100():
    given = np.array([880, 440 * 2 ** (1 / 12), 440, 220])
    np.testing.assert_allclose(cents(given, np.full(4, 440.0)), [1200, 100, 0, -1200], atol=1e-9)
