"""Sums over samples: parts add up to the whole, and say what the data would."""

from __future__ import annotations

import numpy as np
import pytest

from pconv_onnx.calibration.statistics import Moments, NormalEquations, PairHistogram, cross_validated

GENERATOR = np.random.default_rng(0)
VALUES = GENERATOR.normal(0.5, 1, (3, 1000)).astype(np.float32)
OUTPUTS = np.maximum(VALUES + GENERATOR.normal(0, 0.1, VALUES.shape), 0).astype(np.float32)
PARTS = [slice(0, 100), slice(100, 101), slice(101, 1000)]


def histogram(*parts: slice) -> PairHistogram:
    result = PairHistogram(np.full(3, -1.0), np.full(3, 2.0), bins=64)
    for part in parts:
        result.add(VALUES[:, part], OUTPUTS[:, part])
    return result


def test_moments_of_parts_add_up():
    whole, parts = Moments(), Moments()
    whole.add(VALUES)
    for part in PARTS:
        one = Moments()
        one.add(VALUES[:, part])
        parts = parts + one
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(whole.mean, VALUES.mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(parts.maximum, VALUES.max(axis=1))
    assert parts.count == whole.count == 1000


def test_histograms_of_parts_add_up_in_any_order():
    whole = histogram(slice(None))
    summed = histogram(PARTS[2]) + histogram(PARTS[0]) + histogram(PARTS[1])
    np.testing.assert_array_equal(summed.counts, whole.counts)
    np.testing.assert_allclose(summed.sums, whole.sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(summed.squares, np.square(OUTPUTS, dtype=np.float64).sum(axis=1))
    np.testing.assert_array_equal(whole.counts.sum(axis=1), [1000] * 3)
    with pytest.raises(ValueError, match="unequal ranges"):
        whole + PairHistogram(np.full(3, -2.0), np.full(3, 2.0), bins=64)


def test_tails_count_what_lies_at_or_above_an_edge():
    whole = histogram(slice(None))
    counts, sums = whole.above()
    edges = -1 + 3 * np.arange(1, 64) / 64
    for channel in range(3):
        for edge, number, total in zip(edges, counts[channel, 1:], sums[channel, 1:], strict=False):
            reached = VALUES[channel] >= edge
            assert number == reached.sum()
            assert total == pytest.approx(OUTPUTS[channel][reached].sum(), rel=1e-5, abs=1e-5)
    assert (counts[:, 0] == 1000).all() and (counts[:, -1] == 0).all()


def test_normal_equations_find_the_weights_of_layers():
    inputs = np.concatenate([GENERATOR.normal(0, 1, (3, 5, 400)), np.ones((3, 1, 400))], axis=1)
    weights = GENERATOR.normal(0, 1, (3, 2, 6))
    whole, parts = NormalEquations.empty(3, 6, 2), NormalEquations.empty(3, 6, 2)
    whole.add(inputs, weights @ inputs)
    for part in (slice(0, 50), slice(50, 400)):
        one = NormalEquations.empty(3, 6, 2)
        one.add(inputs[:, :, part], weights @ inputs[:, :, part])
        parts = parts + one
    np.testing.assert_allclose(whole.solve(0), weights.swapaxes(1, 2), atol=1e-9)
    np.testing.assert_allclose(parts.solve(1e-3), whole.solve(1e-3), atol=1e-12)
    # The intercept is not held back.
    np.testing.assert_allclose(whole.solve(1e6)[:, :-1], 0, atol=1e-5)
    assert np.abs(whole.solve(1e6)[:, -1]).max() > 0.1


def test_inputs_that_are_always_zero_get_no_weights():
    inputs = np.concatenate([np.zeros((1, 2, 100)), np.ones((1, 1, 100))], axis=1)
    equations = NormalEquations.empty(1, 3, 1)
    equations.add(inputs, np.full((1, 1, 100), 0.3))
    np.testing.assert_allclose(equations.solve(1e-3), [[[0], [0], [0.3]]], atol=1e-12)


def test_the_ridge_is_the_one_with_which_folds_serve_each_other_best():
    ridges = (1e-3, 1e-1, 10.0, 1e6)
    for noise, outputs in ((0, 2), (1, 2), (30, 1)):
        folds = []
        for _ in range(2):
            equations = NormalEquations.empty(3, 9, outputs)
            inputs = np.maximum(GENERATOR.normal(0, 1, (3, 8, 8)) @ GENERATOR.normal(0, 1, (3, 8, 40)), 0)
            inputs = np.concatenate([inputs, np.ones((3, 1, 40))], axis=1)
            inputs[:, 0] = 0
            wanted = inputs[:, 1 : 1 + outputs] + 0.5 + noise * GENERATOR.normal(0, 1, (3, outputs, 40))
            equations.add(inputs, wanted)
            folds.append(equations)

        def gain(ridge: float, folds: list[NormalEquations] = folds) -> float:
            """By how much each lowers the squared residuals of the other."""
            changes = [fold.solve(ridge) for fold in folds[::-1]]
            return sum(
                float((change * (2 * fold.moment - fold.gram @ change)).sum())
                for fold, change in zip(folds, changes, strict=True)
            )

        best = max(ridges, key=gain)
        np.testing.assert_array_equal(cross_validated(folds, ridges), (folds[0] + folds[1]).solve(best))
