"""Thresholds on a line: the count by one division is that by comparisons, or there is none."""

from __future__ import annotations

import numpy as np
import pytest

from pconv_onnx.lower.fusing.lines import counts, lines

ALL = 1 << 24


def reach(rows: int, least: int = 1 - ALL, most: int = ALL - 1) -> np.ndarray:
    return np.tile([least, most], (rows, 1))


def even(start: float, spacing: float, highest: int) -> np.ndarray:
    return np.ceil(start + spacing * np.arange(highest))[np.newaxis].astype(np.int32)


def require_same(thresholds: np.ndarray, span: np.ndarray) -> None:
    found = lines(thresholds, span)
    assert found.dtype == np.float32
    assert (found[:, 1] > 0).all()
    for row, (least, most) in enumerate(span):
        sums = np.unique(np.clip(np.linspace(least, most, 20001).astype(np.int64), least, most))
        sums = np.union1d(sums, np.clip(np.arange(-300, 300), least, most))
        expected = np.searchsorted(thresholds[row], sums, side="right")
        np.testing.assert_array_equal(counts(found[[row]], sums[np.newaxis], thresholds.shape[1])[0], expected)


@pytest.mark.parametrize("seed", range(40))
def test_even_thresholds_lie_on_a_line(seed):
    random = np.random.default_rng(seed)
    highest = int(random.integers(1, 256))
    spacing = random.uniform(0.3, 40000 / highest)
    require_same(even(random.normal(0, 3 * spacing), spacing, highest), reach(1, -200_000, 200_000))


def test_what_no_sum_reaches_need_not_lie_there():
    table = np.array([[-ALL, -40, 10, 60, ALL, ALL]], np.int32)
    require_same(table, reach(1, -80, 100))
    # Of all sums some would be beyond the line.
    assert not lines(np.array([[-40, 10, 60, 5000]], np.int32), reach(1)).any()


@pytest.mark.parametrize(
    "row", [[ALL] * 7, [-ALL] * 7, [-ALL] * 3 + [ALL] * 4, [-ALL] * 3 + [17] + [ALL] * 3, [17] * 7]
)
def test_one_step_or_none(row):
    require_same(np.array([row], np.int32), reach(1, -5000, 5000))


def test_uneven_thresholds_have_none():
    table = np.concatenate([even(0, 10, 4), np.array([[0, 1, 50, 51]], np.int32)])
    assert (lines(table, reach(2)) == 0).all()
    assert (lines(table[:1], reach(1)) != 0).any()


def test_thresholds_that_do_not_ascend_have_none():
    assert (lines(np.array([[10, 0, 20]], np.int32), reach(1)) == 0).all()
