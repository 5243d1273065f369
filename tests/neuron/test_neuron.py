"""The mathematics: four equal forms, sorting, Theorem 4.1, and exactness of compiled neurons."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pconv_onnx.basics.choices import MAX_STEPS
from pconv_onnx.neuron.parallel import ParallelNeuron, train_decoder
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec
from pconv_onnx.neuron.theory import closed_form, matrix_form, rms_error, temporal_mean
from pconv_onnx.neuron.thresholds import smallest_float

F32 = np.dtype(np.float32)
HALF_TYPES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
rationals = st.fractions(min_value=-3, max_value=3, max_denominator=12)
positive = st.fractions(min_value=Fraction(1, 12), max_value=4, max_denominator=12)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def vector(*values) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def floor_then_clip(theta: np.ndarray, levels: int) -> QuantizerSpec:
    """QCFS as torch exports `clamp(floor(x / θ * L + 0.5) / L, 0, 1) * θ`; constants take the type of θ."""
    count = vector(levels)
    head = (FloatOperation("Div", (theta,)), FloatOperation("Mul", (count,)), FloatOperation("Add", (vector(0.5),)))
    tail = (FloatOperation("Div", (count,)), FloatOperation("Clip", (vector(0), vector(1))))
    return spec(theta, levels, head, (*tail, FloatOperation("Mul", (theta,))))


def clip_then_floor(theta: np.ndarray, levels: int) -> QuantizerSpec:
    """QCFS as torch exports `floor(clamp(x / θ, 0, 1) * L + 0.5) / L * θ`."""
    count = vector(levels)
    head = (FloatOperation("Div", (theta,)), FloatOperation("Clip", (vector(0), vector(1))))
    head = (*head, FloatOperation("Mul", (count,)), FloatOperation("Add", (vector(0.5),)))
    return spec(theta, levels, head, (FloatOperation("Div", (count,)), FloatOperation("Mul", (theta,))))


def folded_scale(theta: np.ndarray, levels: int) -> QuantizerSpec:
    """QCFS with its constants multiplied out: `clip(floor(x * (L/θ) + 0.5), 0, L) * (θ/L)`."""
    gain, step = theta.dtype.type(levels) / theta, theta / theta.dtype.type(levels)
    head = (FloatOperation("Mul", (gain,)), FloatOperation("Add", (vector(0.5),)))
    return spec(
        theta, levels, head, (FloatOperation("Clip", (vector(0), vector(levels))), FloatOperation("Mul", (step,)))
    )


def spec(theta, levels, head, tail) -> QuantizerSpec:
    axis = 1 if theta.size > 1 else None
    shift = theta.astype(np.float64) / 2
    return QuantizerSpec(theta.dtype, head, FloatOperation("Floor"), tail, levels, theta, shift, np.zeros(1), axis)


FORMS = (floor_then_clip, clip_then_floor, folded_scale)


def on_every_boundary(neuron: ParallelNeuron, generator: np.random.Generator) -> np.ndarray:
    """`[R, n]`: each threshold, the float below and above it, random floats of every size, and the odd ones."""
    at = neuron.thresholds
    rows = len(at)
    bits = generator.integers(0, 2**32, (rows, 2000), dtype=np.uint32).view(np.float32)
    odd = vector(0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, -1e-38, 3.4e38, -3.4e38)
    near = generator.normal(0, np.nanmax(np.abs(at)) + 1e-30, (rows, 2000)).astype(np.float32)
    everything = np.concatenate(
        [
            at,
            np.nextafter(at, vector(-np.inf)),
            np.nextafter(at, vector(np.inf)),
            np.where(np.isnan(bits), 0, bits),
            near,
        ],
        axis=1,
    )
    return np.concatenate([everything, np.broadcast_to(odd, (rows, len(odd)))], axis=1)


def values(neuron: ParallelNeuron, x: np.ndarray) -> np.ndarray:
    """The neuron's value of `x` `[R, n]`, row r as channel r."""
    by_sample = np.ascontiguousarray(x.T) if neuron.channel_axis is not None else x
    found = neuron.value(neuron.search_form(by_sample))
    return found.T if neuron.channel_axis is not None else found


@st.composite
def trains_of_current(draw):
    steps = draw(st.integers(1, 9))
    current = [[draw(rationals) for _ in range(3)] for _ in range(steps)]
    return np.array(current, dtype=object).reshape(steps, 3)


@given(trains_of_current(), positive, rationals)
def test_four_forms_agree_in_exact_arithmetic(current, theta, shift):
    steps = len(current)
    mean = current.sum(axis=0) / Fraction(steps)
    neuron = ParallelNeuron.even(steps, np.array([theta], dtype=object), np.array([shift], dtype=object), [Fraction(1)])
    spikes = matrix_form(current, theta, shift)
    np.testing.assert_array_equal(neuron.threshold_form(mean), spikes)
    np.testing.assert_array_equal(neuron.search_form(mean), spikes.sum(axis=0))
    np.testing.assert_array_equal(closed_form(mean, steps, theta, shift), spikes.sum(axis=0))


@given(trains_of_current(), positive, rationals)
def test_spike_trains_are_sorted(current, theta, shift):
    spikes = matrix_form(current, theta, shift).astype(int)
    assert (np.diff(spikes, axis=0) <= 0).all()


@given(rationals, positive, st.integers(1, 40))
def test_neuron_with_T_equal_to_L_gives_the_quantised_value(x, theta, levels):
    """Theorem 4.1, in exact arithmetic."""
    count = closed_form(np.array([x], dtype=object), levels, theta, theta / 2)
    expected = theta / levels * min(max((x * levels / theta + Fraction(1, 2)).__floor__(), 0), levels)
    assert theta * int(count[0]) / levels == expected


@given(positive, st.integers(1, 12), st.integers(1, 12))
def test_expected_error_is_zero_for_inputs_spread_over_the_range(theta, levels, steps):
    """Theorem 4.1's second half: T and L differ, b = θ/2; the mean over one period of both grids, at its midpoints."""
    pieces = 2 * levels * steps
    x = np.array([theta * Fraction(2 * i + 1, 2 * pieces) for i in range(pieces)], dtype=object)
    ann = theta * closed_form(x, levels, theta, theta / 2) / levels
    snn = theta * closed_form(x, steps, theta, theta / 2) / steps
    assert sum(ann) == sum(snn)


@pytest.mark.parametrize("levels, steps", [(8, 4), (4, 8), (5, 3), (255, 16), (1, 256)])
def test_the_error_of_other_steps_is_what_neurons_show(levels, steps):
    source = floor_then_clip(vector(1), levels)
    x = ((np.arange(2**18) + 0.5) / 2**18).astype(np.float32)
    neuron = source.neuron(steps)
    found = neuron.value(neuron.search_form(x)) - source(x[np.newaxis])[0]
    assert source.rms_error(neuron) == rms_error(levels, steps)
    assert rms_error(levels, steps) == pytest.approx(np.sqrt((found.astype(np.float64) ** 2).mean()), rel=1e-2)
    assert rms_error(levels, levels) == 0


def rounded(rounding: str, levels: int, share: float, lowest: int = 0) -> QuantizerSpec:
    """`clip(round(x/s), lowest, lowest + levels)·s` with `s = 1/levels`; the shift is `share` of a threshold of 1."""
    step = vector(1 / levels)
    clip = FloatOperation("Clip", (vector(lowest), vector(lowest + levels)))
    tail = (clip, FloatOperation("Mul", (step,)))
    return QuantizerSpec(
        F32, (FloatOperation("Div", (step,)),), FloatOperation(rounding), tail, levels, np.ones(1), np.full(1, share),
        -lowest * step.astype(np.float64), lowest=np.full(1, lowest),
    )  # fmt: skip


@pytest.mark.parametrize("rounding, share", [("Floor", 0.0), ("Round", 0.5), ("Ceil", 1.0)])
@pytest.mark.parametrize("levels, steps", [(8, 4), (8, 7), (5, 3), (255, 16)])
@pytest.mark.parametrize("lowest", [0, -2])
def test_the_mean_error_of_other_steps_is_zero_whatever_the_rounding(rounding, share, levels, steps, lowest):
    source = rounded(rounding, levels, share, lowest)
    x = ((np.arange(2**18) + 0.5) / 2**18 + lowest / levels).astype(np.float32)
    neuron = source.neuron(steps)
    found = (neuron.value(neuron.search_form(x)) - source(x[np.newaxis])[0]).astype(np.float64)
    assert abs(found.mean()) < 1e-4
    assert source.rms_error(neuron) == pytest.approx(np.sqrt((found**2).mean()), rel=1e-2)


@pytest.mark.parametrize("rounding, share", [("Floor", 0.0), ("Round", 0.5), ("Ceil", 1.0)])
def test_a_signed_staircase_has_the_source_s_value_for_every_float(rounding, share):
    source = rounded(rounding, 15, share, -8)
    neuron = source.neuron()
    assert (neuron.levels[0, 0], neuron.levels[0, 8], neuron.steps) == (np.float32(-8) * vector(1 / 15)[0], 0, 15)
    assert not neuron.why_not_carried
    x = on_every_boundary(neuron, np.random.default_rng(0))
    np.testing.assert_array_equal(values(neuron, x), source(x))
    assert (source.silent, source.amplitude) == (neuron.levels[0, 0], pytest.approx(1))


def test_thresholds_that_are_not_evenly_spaced_have_one_neuron():
    generator = np.random.default_rng(0)
    table = np.sort(generator.normal(0, 1, (3, 15)).astype(np.float32), axis=1)
    tail = (FloatOperation("Mul", (vector(0.3),)), FloatOperation("Add", (vector(-2),)))
    source = QuantizerSpec(
        F32, (), FloatOperation("MultiThreshold", (table,)), tail, 15, None, np.zeros(1), np.zeros(1), 1
    )
    neuron = source.neuron()
    np.testing.assert_array_equal(neuron.thresholds, table)
    x = on_every_boundary(neuron, generator)
    np.testing.assert_array_equal(values(neuron, x), source(x))
    with pytest.raises(ValueError, match="thresholds are not evenly spaced, so it has no neuron but that of T = 15"):
        source.neuron(4)
    assert source.rms_error(source.neuron()) is None


def test_the_error_of_four_steps_for_eight_levels():
    assert rms_error(8, 4) == pytest.approx(0.088, abs=5e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 6, 7, 8, 15, 16, 31, 100, 127, 255, 256])
@pytest.mark.parametrize("channels", [1, 5])
def test_compiled_neuron_gives_the_source_value(form, levels, channels):
    generator = np.random.default_rng(levels * channels)
    theta = generator.uniform(1e-2, 12, channels).astype(np.float32)
    source = form(theta, levels)
    neuron = source.neuron()
    assert neuron.steps == levels
    x = on_every_boundary(neuron, generator)
    np.testing.assert_array_equal(values(neuron, x), source(x))


@settings(deadline=None)
@given(st.floats(2**-110, 2**100, width=32), st.integers(1, MAX_STEPS), st.sampled_from(FORMS), st.lists(finite))
def test_compiled_neuron_gives_the_source_value_for_any_threshold(theta, levels, form, inputs):
    source = form(vector(theta), levels)
    try:
        neuron = source.neuron()
    except ValueError:
        # Only where levels coincide or overflow, for thresholds at the end of the range of floats.
        assert theta < 2**-100 or theta > 2**90
        return
    x = np.concatenate([on_every_boundary(neuron, np.random.default_rng(0)), vector(*inputs)[np.newaxis]], axis=1)
    np.testing.assert_array_equal(values(neuron, x), source(x))


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("levels", [1, 3, 4, 6, 8, 15, 16, 31])
def test_compiled_neuron_gives_the_source_value_for_every_half_there_is(form, levels, dtype):
    """Each operator of the source rounds to its type; a half type has few enough values to try them all."""
    theta = np.random.default_rng(levels).uniform(0.1, 12, 5).astype(dtype)
    every = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(dtype)
    every = every[~np.isnan(every.astype(np.float32))]
    every = np.broadcast_to(every, (5, len(every)))
    source = form(theta, levels)
    neuron = source.neuron()
    assert neuron.levels.dtype == neuron.thresholds.dtype == dtype
    np.testing.assert_array_equal(values(neuron, every), source(every))


def test_a_bias_is_added_to_the_current_of_each_step():
    """The shift of a calibrated neuron is θ/2 + T·ψ, whatever T is."""
    head = (FloatOperation("Add", (vector(0.25),)), FloatOperation("Mul", (vector(4),)))
    head = (*head, FloatOperation("Add", (vector(0.5),)))
    tail = (FloatOperation("Clip", (vector(0), vector(8))), FloatOperation("Mul", (vector(0.5),)))
    source = QuantizerSpec(F32, head, FloatOperation("Floor"), tail, 8, vector(2), vector(1), vector(0.25))
    for steps in (1, 4, 8, 16):
        t = np.arange(1, steps + 1)
        np.testing.assert_allclose(source.neuron(steps).thresholds[0], (2 * t - 1) / steps - 0.25, atol=1e-7)
        np.testing.assert_allclose(source.neuron(steps).levels[0, -1], 4)


def test_thresholds_are_the_smallest_floats_that_reach_their_count():
    source = floor_then_clip(vector(3.1418478), 8)
    at = source.neuron().thresholds
    steps = np.arange(1, 9)
    np.testing.assert_array_equal(source.code(at), steps[np.newaxis])
    np.testing.assert_array_equal(source.code(np.nextafter(at, vector(-np.inf))), steps[np.newaxis] - 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_where_a_threshold_is_expected_does_not_change_it(dtype):
    dtype, rng = np.dtype(dtype), np.random.default_rng(0)
    least = rng.normal(0, 100, (3, 200)).astype(dtype)
    least[0, 0], least[1, 0], least[2, 0] = -np.inf, np.inf, np.nan
    exactly, wrong = least.astype(np.float64), rng.normal(0, 1e30, least.shape)
    wrong[:, ::7] = np.nan
    for near in (None, exactly, exactly * (1 + 1e-6), -exactly, wrong):
        found = smallest_float(lambda x: x >= least, least.shape, dtype, near)
        np.testing.assert_array_equal(found.astype(np.float64), exactly)


def test_levels_afresh_would_not_be_the_source_value():
    """Why levels are compiled: `a·k/T` differs in the last bit, at six levels but not at eight."""
    theta = np.random.default_rng(0).uniform(0.1, 10, 500).astype(np.float32)
    afresh = {n: theta[:, np.newaxis] * np.arange(n + 1, dtype=np.float32) / np.float32(n) for n in (6, 8)}
    compiled = {n: floor_then_clip(theta, n).neuron().levels for n in (6, 8)}
    assert (afresh[6] != compiled[6]).any()
    assert (afresh[8] == compiled[8]).all()


def test_nan_never_fires():
    neuron = floor_then_clip(vector(1), 4).neuron()
    nan = vector(np.nan)
    assert not neuron.threshold_form(nan).any()
    assert neuron.search_form(nan) == 0


def test_a_count_that_no_float_reaches_is_a_nan_threshold():
    """A Clip in front that ends half a level too early makes the last count unreachable."""
    head = (FloatOperation("Clip", (vector(-1), vector(0.2))), FloatOperation("Mul", (vector(4),)))
    source = spec(
        vector(1), 2, (*head, FloatOperation("Add", (vector(0.5),))), (FloatOperation("Mul", (vector(0.25),)),)
    )
    with pytest.raises(ValueError, match="does not stay between the values of counts 0 and 2"):
        source.neuron()


def test_binary_search_stops_before_nan_thresholds():
    neuron = ParallelNeuron(np.array([[0.0, 1.0, np.nan]], dtype=np.float32), vector(0, 1, 2, 3)[np.newaxis])
    np.testing.assert_array_equal(neuron.search_form(vector(-1, 0, 0.5, 1, np.inf)), [0, 1, 1, 2, 2])


@pytest.mark.parametrize("steps", [1, 2, 4, 16])
def test_other_numbers_of_steps_give_the_even_neuron(steps):
    neuron = floor_then_clip(vector(2), 8).neuron(steps)
    t = np.arange(1, steps + 1)
    np.testing.assert_allclose(neuron.thresholds[0], (2 * t - 1) / steps, rtol=1e-7)
    np.testing.assert_allclose(neuron.levels[0], 2 * np.arange(steps + 1) / steps, rtol=1e-7)


@pytest.mark.parametrize("steps", [0, -1, 257, 10**6])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"{steps} time-steps; 1 to 256 are possible"):
        floor_then_clip(vector(2), 8).neuron(steps)


def test_unequal_tables_are_refused():
    with pytest.raises(ValueError, match="levels of shape"):
        ParallelNeuron(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="no channel axis"):
        ParallelNeuron(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))


@given(finite, st.integers(1, MAX_STEPS))
def test_equal_currents_have_their_own_value_as_mean(value, steps):
    current = np.full((steps, 1), value, dtype=np.float32)
    assert temporal_mean(current)[0] == np.float32(value)


@pytest.mark.parametrize("steps", [2, 3, 7, 100, 255, 256])
def test_equal_half_currents_have_their_own_value_as_mean(steps):
    """All of them; the sums of the largest bfloat16 values alone leave the range of float32."""
    for dtype, largest in zip(HALF_TYPES, (np.inf, 2.0**119), strict=True):
        every = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(dtype)
        every = every[np.abs(every.astype(np.float32)) <= largest]
        np.testing.assert_array_equal(temporal_mean(np.broadcast_to(every, (steps, len(every)))), every)


def test_the_time_sum_runs_in_order():
    assert temporal_mean(vector(1e30, -1e30, 4, 0)[:, np.newaxis])[0] == 1
    assert temporal_mean(vector(4, 1e30, -1e30, 0)[:, np.newaxis])[0] == 0


@pytest.mark.parametrize("dtype", [F32, *HALF_TYPES], ids=str)
@pytest.mark.parametrize("levels", [1, 6, 8, 15, 100, 255, 256])
def test_decoding_trains_gives_the_levels_in_every_bit(levels, dtype):
    """Though the mean of the trains itself is not always the level."""
    theta = np.random.default_rng(levels).uniform(0.1, 10, 64).astype(dtype)
    try:
        neuron = floor_then_clip(theta, levels).neuron()
    except ValueError:
        neuron = None
    if neuron is None or neuron.why_not_carried:
        assert dtype != F32 and levels >= 100, "only half types have too few values for many levels"
        return
    counts = np.broadcast_to(np.arange(levels + 1)[:, np.newaxis], (levels + 1, len(theta)))
    trains = np.where(np.arange(levels)[:, np.newaxis, np.newaxis] < counts, theta, dtype.type(0))
    decoder = train_decoder(neuron.levels, 1)
    np.testing.assert_array_equal(decoder.search_form(temporal_mean(trains)), counts)
    np.testing.assert_array_equal(decoder.value(counts), neuron.levels.T)
