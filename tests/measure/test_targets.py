"""Errors against targets are what NumPy computes, and belong to the one output that fits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from refusals import refusal_of

from pconv_onnx.measure.targets import TargetError, target_output

refusal = partial(refusal_of, target_output)
GENERATOR = np.random.default_rng(0)


def test_errors_of_batches_add_up_to_that_of_all():
    output = GENERATOR.normal(size=(40, 3)).astype(np.float32)
    targets = GENERATOR.normal(size=(40, 3)).astype(np.float32)
    found = sum((TargetError.of(output[i : i + 7], targets[i : i + 7]) for i in range(0, 40, 7)), TargetError())
    difference = output.astype(np.float64) - targets
    explained = 1 - (difference**2).sum() / ((targets - targets.mean(axis=0)) ** 2).sum()
    expected = {"rmse": np.sqrt((difference**2).mean()), "mae": np.abs(difference).mean(), "r2": explained}
    assert (found.values, found.samples) == (120, 40)
    assert found.summary() == pytest.approx(expected)


def test_what_is_explained_does_not_depend_on_how_large_targets_are():
    targets = 1e8 + GENERATOR.normal(size=(60, 2))
    output = targets + 0.1 * GENERATOR.normal(size=(60, 2))
    found = sum((TargetError.of(output[i : i + 7], targets[i : i + 7]) for i in range(0, 60, 7)), TargetError())
    explained = 1 - np.square(output - targets).sum() / np.square(targets - targets.mean(axis=0)).sum()
    assert found.summary()["r2"] == pytest.approx(explained, abs=1e-6) and explained > 0.98


def test_a_known_error_is_exact():
    found = TargetError.of(np.float32([[3], [0]]), np.float32([0, 4]))
    assert found.summary() == {"rmse": 12.5**0.5, "mae": 3.5, "r2": 1 - 25 / 8}


def test_half_precision_does_not_overflow():
    found = TargetError.of(np.full((4, 1), 60000, np.float16), np.full(4, -60000, np.float16))
    assert found.summary() == {"rmse": 120000.0, "mae": 120000.0, "r2": None}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_none(value):
    assert TargetError().summary() == {"rmse": None, "mae": None, "r2": None}
    assert TargetError.of(np.array([value, 0]), np.arange(2.0)).summary() == {"rmse": None, "mae": None, "r2": None}


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("outputs", "targets", "index"),
    [
        ([zeros(4, 1)], zeros(4), 0),
        ([zeros(4)], zeros(4, 1), 0),
        ([zeros(4, 2), zeros(4, 3)], zeros(4, 3), 1),
        ([zeros(4, 3, 1, 1), zeros(4, 2)], zeros(4, 3), 0),
        ([zeros(4, 3, dtype=np.int64), zeros(4, 3)], zeros(4, 3), 1),
        ([zeros(1, 3), zeros(4, 3)], zeros(4, 3), 1),
    ],
)
def test_targets_are_of_the_output_that_has_their_shape(outputs, targets, index):
    assert target_output("abc", outputs, targets, "m") == index


def test_targets_that_several_outputs_fit_are_told():
    told = refusal(["a", "b", "c"], [zeros(4, 1), zeros(4, 2), zeros(4)], zeros(4), "m.onnx")
    assert told == (
        "'labels' are floats [N], a shape that several outputs of m.onnx have: 'a' and 'c'; keep the one that they are "
        "targets of (onnx.utils.extract_model)"
    )


def test_targets_that_no_output_fits_are_told():
    told = refusal(["a", "b"], [zeros(4, 3, 2), zeros(4, 2)], zeros(4, 2, 3), "m.onnx")
    assert told.startswith("'labels' are floats [N, 2, 3], a shape that no output of m.onnx has: ")
    assert "'a' [N, 3, 2], 'b' [N, 2]; give targets of the shape of an output, class numbers as integers" in told
