"""The exact evaluator gives what onnxruntime gives, to the bit, and says where that is not what integers give."""

from __future__ import annotations

import numpy as np
import pytest
from networks import MODES, network

from fuzzing.whole import whole
from pconv_onnx import rewrite, session

_CODES = "{y}_a = Div ({x}, step) {y}_b = Add ({y}_a, half) {y}_c = Floor ({y}_b) {y} = Clip ({y}_c, {low}, top)"
_NODES = f"""
    a = Div (x, step) b = Round (a) codes = Clip (b, low, top)
    u = Conv <kernel_shape = [2, 2], pads = [1, 0, 0, 1], strides = [2, 1], group = 3> (codes, w, bias)
    {_CODES.format(x="u", y="v", low="low")}
    pooled = MaxPool <kernel_shape = [2, 2]> (v)
    c = Conv <kernel_shape = [1, 1]> (pooled, p)
    {_CODES.format(x="c", y="d", low="zero")}
    both = Concat <axis = 1> (d, pooled)
    summed = ReduceSum <keepdims = 0> (both, axes)
    m = MatMul (summed, q)
    r = Round (m)
    y = Mul (r, unit)
"""
_X = np.random.default_rng(0).normal(0, 9, (3, 3, 8, 8)).astype(np.float32)


def _integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(-9, 10, shape).astype(np.float32)


def _network(**weights):
    held = {"step": 3.0, "low": -4.0, "top": 11.0, "zero": 0.0, "half": 0.5, "unit": 0.1, "axes": np.array([2, 3])}
    tables = {"w": _integers(6, 1, 2, 2), "bias": _integers(6), "p": _integers(5, 6, 1, 1), "q": _integers(11, 4)}
    return network(_NODES, outputs="float[N, 4] y", weights=held | tables | weights)


@pytest.mark.parametrize("coding", ["rate", "radix"])
@pytest.mark.parametrize("mode", MODES)
def test_integers_are_what_onnxruntime_gives(mode, coding):
    snn = rewrite(_network(), mode=mode, coding=coding).model
    (expected,) = session(snn).run(None, {"x": _X})
    (given,) = whole(snn, {"x": _X})
    assert np.unique(given).size > 3
    np.testing.assert_array_equal(given.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(
    "weights, told",
    [
        ({"q": _integers(11, 4) / 2}, "MatMul 'm': .* is no integer"),
        ({"bias": _integers(6) + np.float32(0.25)}, "Conv 'u.*is no integer"),
        ({"q": _integers(11, 4) + np.float32(2**24)}, "MatMul 'm': a sum reaches .* times 2\\^24 grains"),
    ],
)
def test_what_is_no_integer_or_may_be_rounded_is_told(weights, told):
    snn = rewrite(_network(**weights), mode="folded").model
    with pytest.raises(AssertionError, match=told):
        whole(snn, {"x": _X})


def test_an_operator_that_is_not_known_is_named():
    constants = {"step": 1.0, "top": 3.0, "zero": 0.0, "half": 0.5}
    nodes = _CODES.format(x="x", y="v", low="zero") + "y = Sigmoid (v)"
    snn = rewrite(network(nodes, weights=constants), mode="folded").model
    with pytest.raises(NotImplementedError, match="Sigmoid"):
        whole(snn, {"x": _X})
