"""Codes of activations: whole numbers of one spacing, or why there are none."""

from __future__ import annotations

import numpy as np
import pytest

from pconv_onnx.integer.codes import codes_of
from pconv_onnx.neuron.coding import Radix, Rate
from pconv_onnx.neuron.parallel import ParallelNeuron


def table(*rows) -> np.ndarray:
    return np.array(rows, np.float32)


def test_even_levels_and_thresholds():
    neuron = ParallelNeuron.even(4, table(2, 3).reshape(-1), table(0.5, 0.5).reshape(-1), table(2, 3).reshape(-1), 1)
    codes = codes_of(neuron)
    assert (codes.lowest, codes.highest, codes.axis) == (0, 4, 1)
    np.testing.assert_allclose(codes.spacing, [0.5, 0.75])
    np.testing.assert_allclose(codes.step, [0.5, 0.75])
    np.testing.assert_allclose(codes.thresholds, neuron.thresholds)


def test_levels_below_zero_have_codes_below_zero():
    neuron = ParallelNeuron(table([-1.5, -0.5, 0.5, 1.5]), table([-0.6, -0.3, 0, 0.3, 0.6]), None, Rate(2, 2))
    codes = codes_of(neuron)
    assert (codes.lowest, codes.highest, codes.axis) == (-2, 2, None)
    np.testing.assert_allclose(codes.step, [1])
    np.testing.assert_allclose(codes.spacing, [0.3], rtol=1e-6)


@pytest.mark.parametrize("thresholds", [[0.0, 1, 5], [1, 1, 1], [0, 1, np.nan], [0, 1, np.inf]])
def test_uneven_thresholds_are_compared_with(thresholds):
    codes = codes_of(ParallelNeuron(table(thresholds), table([0, 1, 2, 3])))
    assert codes.step is None
    np.testing.assert_array_equal(codes.thresholds, [thresholds])


def test_one_threshold_is_its_own_step():
    codes = codes_of(ParallelNeuron(table([0.7]), table([0, 0.2])))
    np.testing.assert_allclose(codes.step, codes.spacing)


REFUSED = {
    "uneven levels": (ParallelNeuron(table([0, 1, 2]), table([0, 1, 2, 4])), "its levels are not evenly spaced"),
    "no level of zero": (ParallelNeuron(table([0, 1]), table([1, 2, 3])), "none of its levels is zero"),
    "zero in one channel": (
        ParallelNeuron(table([0, 1], [0, 1]), table([0, 1, 2], [-1, 0, 1]), 1, Radix(2)),
        "none of its levels is zero in all channels",
    ),
    "many uneven thresholds": (
        ParallelNeuron(np.sort(np.random.default_rng(0).normal(0, 1, (1, 300))), np.arange(301.0).reshape(1, -1)),
        "its 300 thresholds are not evenly spaced; up to 256 are written",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_codes_says_why(case):
    neuron, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        codes_of(neuron)
