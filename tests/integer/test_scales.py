"""Scales of weights: what integers are already stays so, and what is added is a whole number of the unit."""

from __future__ import annotations

import numpy as np
import pytest

from pconv_onnx.integer.scales import of_added, of_weights, rounded


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape)


def test_weights_are_rounded_to_the_nearest_integer_and_clipped():
    weights = np.array([[-200.0, -128.4, -0.5, 0.5, 1.5, 127.4, 200]])
    assert rounded(weights, np.ones(1), 8).tolist() == [[-128, -128, 0, 0, 2, 127, 127]]
    assert rounded(weights / 8, np.full(1, 0.125), 4).tolist() == [[-8, -8, 0, 0, 2, 7, 7]]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("uniform", [False, True])
def test_integers_keep_their_scale(bits, uniform):
    codes = np.random.default_rng(0).integers(-(1 << (bits - 1)), 1 << (bits - 1), (3, 50)).astype(float)
    codes[:, 0] = -(1 << (bits - 1))
    scale = np.full(3, 0.02) if uniform else np.array([0.02, 0.5, 3])
    weights = codes * scale.reshape(-1, 1)
    found = of_weights([weights], [], [np.zeros(3)], bits, uniform=uniform)
    np.testing.assert_array_equal(rounded(weights, found.scale(0), bits), codes)
    np.testing.assert_allclose(found.unit, scale, rtol=1e-12)
    assert (found.factors[0] == 1).all()


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_no_other_scale_that_is_tried_loses_less(bits, uniform):
    weights = normal(4, 30) * np.array([[1], [1], [0.1], [5]])
    found = of_weights([weights], [], [np.zeros(4)], bits, uniform=uniform)

    def lost(scale: np.ndarray) -> np.ndarray:
        errors = np.square(weights - rounded(weights, scale, bits) * scale.reshape(-1, 1)).sum(axis=1)
        return errors.sum(keepdims=True) if uniform else errors

    assert not uniform or len(set(found.scale(0))) == 1
    for share in np.arange(64, 161) / 128:
        largest = abs(weights).max(axis=1)
        tried = (np.full(4, largest.max()) if uniform else largest) / ((1 << (bits - 1)) * share)
        assert (lost(found.scale(0)) <= lost(tried) * (1 + 1e-9)).all()


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("unit", [0.2, 1, 100])
def test_what_is_added_is_a_whole_number_of_the_unit(bits, unit, uniform):
    added = np.array([1, 2, 0.5]) * unit
    found = of_weights([normal(3, 20), normal(3, 9, seed=1)], [added], [np.zeros(3)], bits, uniform=uniform)
    multiples = added / found.unit
    assert (found.factors[0] == np.rint(found.factors[0])).all()
    assert (found.factors[0] >= 1).all()
    # Of several the finest; rounding what is added moves nothing by more than rounding a weight does.
    exact = multiples if not uniform else multiples[added == added.min()]
    np.testing.assert_allclose(exact, np.rint(exact), rtol=1e-9)
    assert (abs(np.rint(multiples) * found.unit - added) <= found.scale(0) / 2).all()
    assert (np.rint(multiples) >= 1).all()


@pytest.mark.parametrize("weights", [np.zeros((2, 3)), np.array([[1.0, 2, 3], [0, 0, 0]]), np.full((2, 3), 1e-300)])
def test_weights_of_zero_have_a_scale(weights):
    found = of_weights([weights], [], [np.zeros(2)], 8, uniform=False)
    assert np.isfinite(found.scale(0)).all()
    assert (found.scale(0) > 0).all()
    off = abs(rounded(weights, found.scale(0), 8) * found.scale(0).reshape(-1, 1) - weights)
    assert (off <= abs(weights).max() * 1e-2).all()


def test_a_large_bias_leaves_room_for_itself():
    found = of_weights([normal(2, 5) * 1e-6], [], [np.array([1e6, 0])], 8, uniform=False)
    assert (1e6 / found.unit[0]) < 2**22
    assert found.unit[1] < 1e-6


def test_what_is_next_to_nothing_beside_a_layer_makes_no_unit_finer():
    weights = normal(3, 20)
    alone = of_weights([weights], [], [np.zeros(3)], 8, uniform=False)
    beside = of_weights([weights], [np.full(3, 1e-6)], [np.zeros(3)], 8, uniform=False)
    assert (beside.unit >= alone.unit / 16).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("added", [[], [np.array([1.0, 2, 0.5, 30])]], ids=["nothing added", "added"])
def test_channels_that_are_alike_share_a_unit_and_lose_nothing(bits, added):
    weights = normal(4, 30) * np.array([[1], [1], [0.001], [5]])
    alone = of_weights([weights], added, [np.zeros(4)], bits, uniform=False)
    found = of_weights([weights], added, [np.zeros(4)], bits, uniform=False, alike=True)
    each = added[0] if added else np.ones(4)
    assert len(np.unique(each / found.unit)) == 1
    assert not added or np.log2(each[0] / found.unit[0]) % 1 == 0

    def lost(scale: np.ndarray) -> float:
        off = weights - rounded(weights, scale, bits) * scale.reshape(-1, 1)
        return float(np.square(off / each.reshape(-1, 1)).sum())

    assert (found.factors[0] == np.rint(found.factors[0])).all()
    assert (found.factors[0] >= 1).all()
    assert lost(found.scale(0)) <= 1.1 * lost(alone.scale(0))


def test_channels_that_are_alike_have_units_of_their_own_where_sums_have_no_room():
    weights = normal(4, 30) * np.array([[1], [1], [0.3], [5]])
    alone = of_weights([weights], [], [np.zeros(4)], 8, uniform=False)
    full = alone.unit * 2.0**22
    assert len(np.unique(of_weights([weights], [], [np.zeros(4)], 8, uniform=False, alike=True).unit)) == 1
    found = of_weights([weights], [], [np.zeros(4)], 8, uniform=False, alike=True, largest=full)
    np.testing.assert_array_equal(found.unit, alone.unit)


def test_sums_of_units_that_fit_have_their_largest_common_one():
    found = of_added([np.array([0.5]), np.array([0.75, 0.125])], [], 2, 8, uniform=False)
    np.testing.assert_allclose(found.unit, [0.25, 0.125])
    assert len(set(of_added([np.array([0.5]), np.array([0.75, 0.125])], [], 2, 8, uniform=True).unit)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_sums_of_other_units_are_nearly_whole_numbers(seed):
    units = np.random.default_rng(seed).uniform(0.1, 3, (3, 4))
    found = of_added(list(units), [], 4, 8, uniform=False)
    multiples = units / found.unit
    assert (abs(np.rint(multiples) - multiples) / multiples < 0.01).all()


@pytest.mark.parametrize(("reach", "parts"), [(4, 64), (31, 64), (100, 20), (255, 8), (65535, 8)])
def test_an_offset_has_a_fine_unit_that_it_fits_into(reach, parts):
    found = of_added([np.array([1.0, 1.0])], [np.array([0.3, 1e30])], 2, reach, uniform=False)
    assert 1 / found.unit[0] == parts
    assert 1e30 / found.unit[1] <= 2**24
