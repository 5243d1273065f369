"""Each method's staircase against its definition on the data themselves."""

from __future__ import annotations

import numpy as np
import pytest

from pconv_onnx.calibration import staircases
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.statistics import Moments, PairHistogram
from pconv_onnx.neuron.coding import Radix

GENERATOR = np.random.default_rng(0)
VALUES = (GENERATOR.normal(0, 1, (3, 20000)) * [[0.1], [1], [30]]).astype(np.float32)
OUTPUTS = np.maximum(VALUES, 0)
MAXIMUM = OUTPUTS.max(axis=1)


def moments(values: np.ndarray) -> Moments:
    result = Moments()
    result.add(values)
    return result


def outputs_histogram() -> PairHistogram:
    result = PairHistogram(np.zeros(3), MAXIMUM)
    result.add(OUTPUTS, OUTPUTS)
    return result


def pairs(values: np.ndarray = VALUES) -> PairHistogram:
    result = PairHistogram(-MAXIMUM / 2, MAXIMUM)
    result.add(values, OUTPUTS)
    return result


def error(staircase: Staircase, values: np.ndarray = VALUES) -> np.ndarray:
    """Mean squared error of each channel, in units of its variance."""
    level = staircase.constants()[2].reshape(-1, 1)
    return np.square(staircase.codes(values) * level - OUTPUTS).mean(axis=1) / OUTPUTS.var(axis=1)


def test_max_takes_the_largest_output():
    staircase = staircases.by_maximum(MAXIMUM, 4)
    np.testing.assert_array_equal(staircase.threshold, MAXIMUM)
    assert staircase.codes(VALUES).max() == 4
    np.testing.assert_allclose(
        staircase.codes(MAXIMUM.reshape(-1, 1) * [[0.124, 0.126, 0.874, 0.876, 5]]), [[0, 1, 3, 4, 4]] * 3
    )


def test_percentile_cuts_off_one_in_a_thousand():
    staircase = staircases.by_percentile(outputs_histogram(), MAXIMUM, 4)
    share = (OUTPUTS > staircase.threshold.reshape(-1, 1)).mean(axis=1)
    np.testing.assert_allclose(share, 0.001, atol=3e-4)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_mse_is_the_best_of_all_thresholds(steps):
    found = error(staircases.by_squared_error(outputs_histogram(), MAXIMUM, steps))
    others = [error(staircases.by_maximum(MAXIMUM * share, steps)) for share in np.linspace(0.05, 1.1, 60)]
    assert (found <= np.min(others, axis=0) * 1.002).all()


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 32])
def test_fit_is_no_worse_than_any_other_method(steps):
    noisy = VALUES * np.float32(0.8) - np.float32(0.1) * MAXIMUM.reshape(-1, 1) / 10
    found = error(staircases.by_fit(pairs(noisy), steps, centred=False), noisy)
    others = [staircases.by_maximum(MAXIMUM, steps), staircases.by_squared_error(outputs_histogram(), MAXIMUM, steps)]
    shifted = staircases.with_shifts(others[0], moments(VALUES), moments(noisy))
    others.append(staircases.with_amplitudes(shifted, moments(OUTPUTS), moments(shifted.codes(noisy))))
    assert all((found <= error(other, noisy) * 1.01).all() for other in others)


def test_fit_finds_a_staircase_that_is_there():
    """Outputs that are five levels of the inputs already."""
    codes = np.clip(np.floor((VALUES - 0.3 * MAXIMUM.reshape(-1, 1)) / (0.1 * MAXIMUM.reshape(-1, 1)) + 1), 0, 4)
    outputs = (codes * 0.2 * MAXIMUM.reshape(-1, 1)).astype(np.float32)
    histogram = PairHistogram(-MAXIMUM / 2, MAXIMUM)
    histogram.add(VALUES, outputs)
    staircase = staircases.by_fit(histogram, 4, centred=False)
    assert (staircase.codes(VALUES) == codes).mean() > 0.998
    np.testing.assert_allclose(staircase.amplitude / 4, 0.2 * MAXIMUM, rtol=0.01)


def test_a_mean_error_does_not_count_where_it_is_corrected_later():
    centred, plain = (staircases.by_fit(pairs(), 2, centred=flag) for flag in (True, False))

    def deviation(staircase):
        wrong = staircase.codes(VALUES) * staircase.constants()[2].reshape(-1, 1) - OUTPUTS
        return wrong.var(axis=1)

    assert (deviation(centred) < deviation(plain)).all()
    assert (error(plain) < error(centred)).all()


def test_the_paper_s_corrections_come_to_rest():
    noisy = VALUES - np.float32(0.05) * MAXIMUM.reshape(-1, 1)
    staircase = staircases.with_shifts(staircases.by_maximum(MAXIMUM, 4), moments(VALUES), moments(noisy))
    np.testing.assert_allclose(staircase.shift, 0.05 * MAXIMUM, rtol=1e-2)
    codes = staircase.codes(noisy)
    corrected = staircases.with_amplitudes(staircase, moments(OUTPUTS), moments(codes))
    # φ is the mean of y_ref − (θ + φ)·k/T.
    correction = corrected.amplitude - staircase.threshold
    rest = (OUTPUTS - corrected.amplitude.reshape(-1, 1) * codes / 4).mean(axis=1)
    np.testing.assert_allclose(correction, rest, rtol=1e-3, atol=1e-6)


def test_a_silent_channel_never_fires():
    staircase = staircases.with_silent(staircases.by_maximum(MAXIMUM, 4), np.array([True, False, True]))
    np.testing.assert_array_equal(staircase.silent, [True, False, True])
    huge = np.full((3, 1), np.finfo(np.float32).max, np.float32)
    np.testing.assert_array_equal(staircase.codes(huge), [[0], [4], [0]])
    assert not any(np.isnan(constant).any() for constant in staircase.constants())


def test_outputs_that_no_threshold_explains_make_a_channel_silent():
    histogram = PairHistogram(np.full(1, -0.5), np.ones(1))
    histogram.add(np.linspace(-0.5, 0.9, 100, dtype=np.float32)[np.newaxis], np.zeros((1, 100), np.float32))
    assert staircases.by_fit(histogram, 4, centred=False).silent.all()


MANY = [100, 255, 4095, 65535]


@pytest.mark.parametrize("steps", MANY)
def test_the_error_of_many_levels_is_that_of_rounding(steps):
    """A twelfth of a level's square for each value that fires, where no level is cut off or left out."""
    level = MAXIMUM / steps
    rounding = (OUTPUTS > 0).mean(axis=1) * level**2 / 12 / OUTPUTS.var(axis=1)
    for staircase in (
        staircases.by_fit(pairs(), steps, centred=False),
        staircases.by_squared_error(outputs_histogram(), MAXIMUM, steps),
    ):
        # In float32 a value is one of 2²⁴ itself.
        assert (error(staircase) < 1.1 * rounding + 2.0**-40).all()


@pytest.mark.parametrize("steps", [65, 255])
@pytest.mark.parametrize("zero", [0, 20])
def test_what_is_integrated_is_what_is_summed_up(zero, steps, monkeypatch):
    """Of values that are spread evenly, at edges before the first bin and behind the last as well."""
    values = np.linspace(-0.5, 1, 300_001, dtype=np.float32)[np.newaxis]
    even = PairHistogram(np.full(1, -0.5), np.ones(1))
    even.add(values, np.maximum(values, 0))
    first, spacing = np.meshgrid(np.linspace(1300, 1500, 5), np.array([1000, 3000, 6000]) / steps)
    start = np.broadcast_to(first - zero * spacing, (1, 3, 5))
    tables = even.above()
    found = staircases._sums(*tables, start, np.broadcast_to(spacing, start.shape), steps)
    monkeypatch.setattr(staircases, "_SUMMED", steps)
    expected = staircases._sums(*tables, start, np.broadcast_to(spacing, start.shape), steps)
    for ours, theirs in zip(found, expected, strict=True):
        # That of the midpoint rule where f has a corner.
        np.testing.assert_allclose(ours, theirs, rtol=4 / steps**2)


SIGNED = np.where(VALUES > 0, VALUES, VALUES * np.float32(0.2))
LOWEST, HIGHEST = SIGNED.min(axis=1), SIGNED.max(axis=1)


def signed_histogram() -> PairHistogram:
    result = PairHistogram(LOWEST - HIGHEST / 2, HIGHEST)
    result.add(SIGNED, SIGNED)
    return result


def trimmed(staircase: Staircase) -> Staircase:
    return staircases.trimmed(staircase, LOWEST, HIGHEST, Radix)


@pytest.mark.parametrize("steps", [1, 3, 15, 255, 32767])
def test_zero_is_a_level(steps):
    """At k₀ the output is zero in bits, and what is zero is silent."""
    for staircase in (
        trimmed(staircases.mirrored(staircases.by_maximum(HIGHEST, steps))),
        trimmed(staircases.by_fit(signed_histogram(), 2 * steps, centred=True, zero=steps)),
    ):
        assert 0 <= staircase.zero <= staircase.steps - 1 and staircase.steps - staircase.zero <= steps
        assert (staircase.codes(np.zeros((3, 1), np.float32)) == staircase.zero).all()
        level = staircase.constants()[2]
        assert (np.float32(staircase.zero) * level + staircase.offset == 0).all()
        values = staircase.codes(SIGNED) * level.reshape(-1, 1) + staircase.offset.reshape(-1, 1)
        np.testing.assert_array_equal(np.sign(values)[values != 0], np.sign(SIGNED)[values != 0])
        # Levels are up to 1.5 times as coarse as those that reach the largest value; a lone one is another story.
        largest = (np.abs(values - SIGNED) / HIGHEST.reshape(-1, 1)).mean()
        assert steps < 3 or largest < 0.5 / steps


def test_levels_that_no_channel_reaches_are_left_out():
    whole = staircases.mirrored(staircases.by_maximum(HIGHEST, 100))
    staircase = trimmed(whole)
    assert (whole.steps, whole.zero) == (200, 100)
    reached = whole.codes(SIGNED)
    assert (staircase.steps, staircase.zero) == (reached.max() - reached.min(), 100 - reached.min())
    np.testing.assert_array_equal(staircase.codes(SIGNED), reached - reached.min())
    np.testing.assert_allclose(staircase.constants()[2], whole.constants()[2], rtol=2**-15)


def test_a_silent_channel_has_the_count_of_silence():
    staircase = trimmed(staircases.mirrored(staircases.by_maximum(HIGHEST, 10)))
    staircase = staircases.with_silent(staircase, np.array([True, False, True]))
    huge = np.array([[-(2.0**100), 0, 2.0**100]] * 3, np.float32)
    np.testing.assert_array_equal(staircase.codes(huge)[[0, 2]], np.full((2, 3), staircase.zero))
    np.testing.assert_array_equal(staircase.codes(huge)[1], [0, staircase.zero, staircase.steps])
    assert all(np.isfinite(constant).all() for constant in staircase.constants())
