"""Spans and grains: operations on intervals hold what operations on their members give."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pconv_onnx.integer.proof.values import UNBOUNDED, ZERO, Span, Whole, common


@st.composite
def members(draw) -> tuple[Span, np.ndarray]:
    """A span of two channels `[2, 1]`, and numbers in it `[2, 8]`."""
    grain = draw(st.sampled_from([Fraction(1), Fraction(3), Fraction(1, 4), Fraction(12)]))
    ends = draw(st.lists(st.tuples(*[st.integers(-50, 50)] * 2), min_size=2, max_size=2))
    low, high = np.sort(np.array(ends), axis=1).T[..., np.newaxis]
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = generator.integers(low, high + 1, (2, 8))
    numbers[:, :2] = np.concatenate([low, high], axis=1)
    return Span(low * float(grain), high * float(grain), grain), numbers * float(grain)


def require_in(span: Span, values: np.ndarray) -> None:
    assert (span.low <= values).all() and (values <= span.high).all()
    assert (np.mod(values, float(span.grain or 1)) == 0).all()


@given(members(), members())
def test_operations_hold_what_members_give(left, right):
    (one, values), (other, others) = left, right
    require_in(one.plus(other), values + others)
    require_in(one.times(other), values * others)
    require_in(one.negated(), -values)
    require_in(Span.joined([one, other]), np.concatenate([values, others], axis=1))
    require_in(one.repeated(5), 5 * values)
    require_in(one.over(4), values / 4)
    require_in(one.as_one(), values)
    require_in(one.with_zero, np.concatenate([values, 0 * values], axis=1))
    require_in(one.transposed([0, 2, 1]), values[np.newaxis].transpose(0, 2, 1))


@given(members())
def test_bounds_are_reached(one):
    span, values = one
    assert (values.min(axis=1) == span.low.reshape(-1)).all() and (values.max(axis=1) == span.high.reshape(-1)).all()
    assert span.in_units * float(span.unit) == abs(values).max()
    assert span.along(-2).low.tolist() == values.min(axis=1).tolist()
    assert span.along(-1).low.tolist() == [values.min()]


@pytest.mark.parametrize(
    ("values", "grain", "unit"),
    [([12, -18, 0], 6, 2), ([0, 0], 0, 1), ([7], 7, 1), ([], 0, 1), ([2.0**40, 2.0**41], 2**40, 2**40)],
)
def test_the_unit_is_the_power_of_two_in_what_divides_all(values, grain, unit):
    span = Span.of(np.array(values))
    assert span is not None
    assert (span.grain, span.unit) == (grain, unit)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 2.0**62])
def test_constants_that_are_no_integers_have_no_span(value):
    assert Span.of(np.array([1, value])) is None


def test_grains_have_a_common_one():
    assert common(Fraction(3, 4), Fraction(1, 2)) == Fraction(1, 4)
    assert common(Fraction(0), Fraction(6), Fraction(4)) == 2


def test_means_of_rows_are_multiples_of_a_share_of_their_grain():
    rows = Span(np.asarray(0.0), np.asarray(24.0), Fraction(12))
    assert (Whole.of(rows, 6).mean.grain, Whole.of(rows, 6).mean.even) == (2, True)
    assert Whole.of(rows, 8).mean.even and Whole.of(rows, 8).mean.unit == Fraction(1, 2)
    assert not Whole.of(rows, 5).mean.even


def test_what_has_no_bounds_has_none_after_sums_and_products_and_zero_times_it_is_zero():
    assert not UNBOUNDED.plus(UNBOUNDED).bounded
    assert not UNBOUNDED.times(Span(np.asarray(-2.0), np.asarray(-1.0))).bounded
    assert UNBOUNDED.times(ZERO).in_units == 0
