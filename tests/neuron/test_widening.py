"""Levels of neurons whose counts reach differently far, brought to one width."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pconv_onnx.neuron.coding import CODINGS
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.neuron.widening import widened

RNG = np.random.default_rng(0)
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def grid(below: int, above: int, dtype=np.float32, rows: int = 3) -> np.ndarray:
    """Levels a·k/S of amplitudes of any size, zero that many counts from the lowest."""
    unit = RNG.uniform(0.5, 2, (rows, 1)) * 10.0 ** RNG.integers(-2, 2, (rows, 1))
    return (unit * np.arange(-below, above + 1)).astype(dtype)


GRIDS = [(0, 4), (1, 4), (4, 1), (4, 4), (3, 7), (7, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reaches", GRIDS, ids=str)
def test_levels_that_were_there_are_there_and_others_go_on_evenly(reaches, dtype):
    below, above = reaches
    levels = grid(below, above, dtype)
    found = widened(levels, 8, 15)
    assert found.dtype == levels.dtype and found.shape == (3, 16)
    np.testing.assert_array_equal(found[:, 8 - below : 9 + above], levels)
    unit = found[:, [9]].astype(np.float64)
    tolerance = 4 * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype(np.float64), unit * np.arange(-8, 8), rtol=tolerance)


@pytest.mark.parametrize("reaches", GRIDS, ids=str)
def test_levels_widened_twice_are_those_widened_once(reaches):
    """A Concat may be given what another one gives."""
    levels = grid(*reaches)
    once = widened(levels, 9, 17)
    for zero, highest in ((7, 14), (8, 15), (9, 16), (9, 17)):
        np.testing.assert_array_equal(widened(widened(levels, zero, highest), 9, 17), once)
    np.testing.assert_array_equal(widened(levels, reaches[0], sum(reaches)), levels)


@pytest.mark.parametrize("coding", CODINGS.values())
@pytest.mark.parametrize("reaches", [(0, 7), (1, 7), (7, 1), (7, 7), (7, 0), (3, 7), (7, 3)], ids=str)
def test_spikes_are_worth_what_they_were(reaches, coding):
    """By whichever of their levels their worth is told."""
    below, above = reaches
    levels = grid(below, above)
    steps = coding.steps_for(7)
    own, joined = ParallelNeuron(levels[:, 1:], levels, 1, coding(steps, below)), widened(levels, 7, 14)
    other = ParallelNeuron(joined[:, 1:], joined, 1, coding(steps, 7))
    counts = np.repeat(np.arange(below + above + 1)[:, np.newaxis], 3, axis=1)
    np.testing.assert_array_equal(other.emitted(counts + 7 - below), own.emitted(counts))


def test_what_cannot_go_on_is_not_widened():
    levels = grid(1, 2)
    # No count of zero, counts that reach farther, and too large a number.
    assert widened(levels + np.float32(0.25), 4, 8) is None
    assert widened(levels, 0, 8) is None
    assert widened(levels, 4, 5) is None
    assert widened(np.array([[0, 1e38]], np.float32), 0, 4) is None
    assert widened(np.zeros((1, 1), np.float32), 1, 2) is None
    # Uneven ones do not ascend where they go on by the first of their differences.
    assert widened(np.array([[0, 1, 9]], np.float32), 0, 3) is None
