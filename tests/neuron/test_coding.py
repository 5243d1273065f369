"""Codings: trains whose mean is the level, in as few time-steps as they need."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pconv_onnx.neuron.coding import CODINGS, Radix, Rate
from pconv_onnx.neuron.parallel import ParallelNeuron, train_decoder
from pconv_onnx.neuron.theory import rms_error, temporal_mean

F32 = np.dtype(np.float32)
TYPES = (F32, np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
EVERY = pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)


def neuron_of(coding, highest, zero=0, dtype=F32, unit=0.25, extra=0, lowest=0.0) -> ParallelNeuron:
    """Levels a unit apart, that of k₀ at `lowest`; as many steps as these need, and so many more."""
    counts = np.arange(highest + 1) - zero
    levels = (counts * unit + lowest).astype(dtype)[np.newaxis]
    thresholds = ((counts[1:] - 0.5) * unit + lowest).astype(dtype)[np.newaxis]
    steps = coding.steps_for(max(zero, highest - zero)) + extra
    return ParallelNeuron(thresholds, levels, None, coding(steps, zero))


@st.composite
def grids(draw):
    highest = draw(st.integers(1, 255))
    return highest, draw(st.integers(0, highest))


@pytest.mark.parametrize(
    "coding, reach, steps",
    [(Rate, 15, 15), (Rate, 255, 255), (Radix, 1, 1), (Radix, 3, 2), (Radix, 4, 3), (Radix, 15, 4), (Radix, 127, 7),
     (Radix, 128, 8), (Radix, 255, 8), (Radix, 65535, 16)],
)  # fmt: skip
def test_the_fewest_steps_for_levels(coding, reach, steps):
    assert coding.steps_for(reach) == steps
    assert coding.most(steps) >= reach
    assert steps == 1 or coding.most(steps - 1) < reach


@EVERY
@given(grid=grids(), extra=st.integers(0, 3))
def test_the_mean_of_a_train_is_its_level(coding, grid, extra):
    """In exact arithmetic: a unit of a quarter, and sums in float64."""
    highest, zero = grid
    neuron = neuron_of(coding, highest, zero, extra=extra * coding.weighted)
    trains = neuron.emitted(np.arange(highest + 1)).astype(np.float64)
    np.testing.assert_array_equal(trains.sum(axis=0), neuron.steps * neuron.levels[0].astype(np.float64))
    assert neuron.why_not_carried == ""


@EVERY
@given(grid=grids())
def test_digits_are_those_of_the_distance_from_silence(coding, grid):
    highest, zero = grid
    neuron = neuron_of(coding, highest, zero)
    counts = np.arange(highest + 1)
    digits = neuron.coding.digits(counts)
    assert digits.shape == (neuron.steps, highest + 1) and digits.dtype == np.int8
    # All digits of a train have the sign of its value, and at silence there are none.
    assert (digits * np.sign(counts - zero) >= 0).all() and not digits[:, zero].any()
    np.testing.assert_array_equal(neuron.coding.operations(counts), abs(digits).sum(axis=0))
    if coding is Radix:
        weights = 2 ** np.arange(neuron.steps)[::-1]
        np.testing.assert_array_equal(weights @ digits.astype(int), counts - zero)
    else:
        np.testing.assert_array_equal(digits.sum(axis=0, dtype=int), counts - zero)
        assert (np.diff(abs(digits), axis=0) <= 0).all()


@EVERY
def test_the_maximum_is_the_train_of_the_maximum_where_digits_ascend(coding):
    neuron = neuron_of(coding, 14, 7)
    pairs = np.array(list(itertools.product(range(15), repeat=2))).T
    one, other = (neuron.emitted(counts) for counts in pairs)
    for combined, count in ((np.maximum(one, other), pairs.max(axis=0)), (np.minimum(one, other), pairs.min(axis=0))):
        right = (combined == neuron.emitted(count)).all()
        assert right == coding.ascending


def test_a_dense_train_is_silent_at_its_lowest_level():
    neuron = neuron_of(Radix, 15, lowest=-2.0)
    np.testing.assert_array_equal(neuron.emitted(np.array([0, 1, 8])).T, [[-2] * 4, [-2, -2, -2, -1], [6, -2, -2, -2]])
    assert neuron.why_not_carried == ""


def test_a_side_with_fewer_levels_mirrors_the_other():
    """−8 … 7: no level is 8 units above silence, but its spike is."""
    neuron = neuron_of(Radix, 15, 8)
    np.testing.assert_array_equal(neuron.emitted(np.array([0, 15])).T, [[-8, 0, 0, 0], [0, 4, 2, 1]])
    np.testing.assert_array_equal(neuron_of(Rate, 15, 8).emitted(np.array([0, 15])).T, [[-2] * 8, [2] * 7 + [0]])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("steps", range(1, 17))
def test_a_train_is_decoded_exactly_or_refused(steps, dtype):
    """Every count of as many levels as some steps have, of units that types round; which types carry which."""
    units = np.random.default_rng(steps).uniform(0.1, 10, 5)
    for unit, signed in itertools.product(units, (False, True)):
        reach = Radix.most(steps)
        if signed and reach > 32767:
            continue
        neuron = neuron_of(Radix, reach * (1 + signed), reach * signed, unit=np.float32(unit))
        try:
            neuron = neuron.astype(dtype)
        except ValueError:
            assert dtype != F32
            continue
        counts = np.arange(neuron.highest + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = train_decoder(neuron.levels, None).search_form(temporal_mean(neuron.emitted(counts)))
        assert (neuron.why_not_carried == "") <= (decoded == counts).all()
        # Within a mantissa there is room for eight digits of float16, and for sixteen of float32.
        if dtype == F32 or (dtype == np.float16 and steps <= 8 and unit * reach * steps < 30000):
            assert neuron.why_not_carried == ""


@pytest.mark.parametrize(
    "neuron, reason",
    [
        (neuron_of(Radix, 255, unit=200, dtype=np.dtype(np.float16)), "its spikes are beyond the range of float16"),
        (neuron_of(Radix, 127, dtype=TYPES[2], unit=np.float32(0.37)), "told apart in bfloat16, in coding 'radix'"),
        (ParallelNeuron(np.ones((1, 3), F32), np.array([[0, 1, 2, 4]], F32), None, Radix(2)), "not evenly spaced"),
    ],
)  # fmt: skip
def test_what_a_type_does_not_carry_is_told(neuron, reason):
    assert reason in neuron.why_not_carried


@pytest.mark.parametrize(
    "coding, reason",
    [
        (Radix(3), "3 time-steps in coding 'radix' for counts up to 15 from silence"),
        (Radix(257), "257 time-steps"),
        (Rate(14), "14 time-steps in coding 'rate' for counts up to 15"),
        (Radix(4, 16), "the count 16 of silence is none of 0 to 15"),
        (Radix(4, 3), "the level of silence is not zero"),
    ],
)
def test_codings_that_do_not_fit_their_levels_are_refused(coding, reason):
    levels = np.arange(16, dtype=np.float32)[np.newaxis]
    with pytest.raises(ValueError, match=reason):
        ParallelNeuron(levels[:, 1:], levels, None, coding)


@pytest.mark.parametrize(
    "levels, zero, steps",
    [(255, 30, 1), (255, 2, 1), (15, 8, 8), (15, 8, 4), (14, 7, 3), (255, 128, 16), (255, 128, 200)],
)
def test_the_error_of_other_steps_of_signed_trains(levels, zero, steps):
    """Against both staircases, in reals."""
    reach = max(zero, levels - zero)
    x = (np.arange(2**18) + 0.5) / 2**18 * levels
    ann = np.floor(x + 0.5).clip(0, levels)
    spacing = reach / steps
    below, above = round(zero / spacing), round((levels - zero) / spacing)
    snn = np.floor((x - zero) / spacing + 0.5).clip(-below, above) * spacing + zero
    expected = np.sqrt((((snn - ann) / levels) ** 2).mean())
    assert rms_error(levels, steps, 0.5, zero) == pytest.approx(expected, abs=1e-4)
    assert (rms_error(levels, steps, 0.5, zero) == 0) == (steps == reach)
