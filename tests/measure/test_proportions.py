"""Intervals of proportions against the equation that defines them, and against known values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pconv_onnx.measure.proportions import Z95, standard_error, wilson


@given(st.integers(1, 500).flatmap(lambda samples: st.tuples(st.integers(0, samples), st.just(samples))))
def test_ends_are_as_many_standard_errors_of_their_own_away(case):
    """(p − q)² = z² q (1 − q) / n, which the interval solves for q."""
    right, samples = case
    low, high = wilson(right, samples, Z95)
    assert 0 <= low <= right / samples <= high <= 1 and low < high
    for end in (low, high):
        assert (right / samples - end) ** 2 == pytest.approx(Z95**2 * end * (1 - end) / samples, abs=1e-12)


def test_known_intervals():
    assert wilson(0, 10, Z95) == pytest.approx((0, 0.2775328), abs=1e-6)
    assert wilson(9, 10, Z95) == pytest.approx((0.5958500, 0.9821238), abs=1e-6)


def test_the_standard_error_is_the_usual_one_of_many_and_not_zero_of_few():
    assert standard_error(8600, 10_000) == pytest.approx(math.sqrt(0.86 * 0.14 / 10_000), rel=1e-3)
    assert standard_error(6, 6) == pytest.approx(1 / 14)
