"""What nodes compute of constants alone, as onnxruntime computes it."""

from __future__ import annotations

import numpy as np
from networks import network, weight

from pconv_onnx.graph import load
from pconv_onnx.runtime.computed import computed_constants

CODES = np.array([[-128, 3], [5, 127]], np.int8)
WEIGHTS = {"codes": CODES, "scale": np.array([0.5, 2], np.float32), "zeros": np.array([0, 1], np.int8)}


def test_weights_behind_a_dequantizelinear_are_computed():
    nodes = "q = DequantizeLinear <axis = 0> (codes, scale, zeros) t = Transpose (q) y = MatMul (x, t)"
    model = network(nodes, inputs="float[N, 2] x", outputs="float[N, 2] y", weights=WEIGHTS)
    found = computed_constants(load(model))
    assert found.keys() == {"t"}
    np.testing.assert_array_equal(found["t"], [[-64, 8], [1.5, 252]])


def test_what_inputs_change_is_not():
    nodes = "m = ReduceMax <keepdims = 0> (x) v = Mul (w, m) k = Abs (w) c = Conv (x, v) d = Conv (x, k) y = Add (c, d)"
    model = network(nodes, outputs="float[N, 3, 8, 8] y", weights={"w": weight(3, 3, 1, 1)})
    found = computed_constants(load(model))
    assert found.keys() == {"k"}
    np.testing.assert_array_equal(found["k"], abs(weight(3, 3, 1, 1)))


def test_an_output_that_is_computed_of_constants_is_among_them():
    model = network("y = Abs (w) z = Neg (x)", outputs="float[3, 3, 1, 1] y, float[N, 3, 8, 8] z",
                    weights={"w": weight(3, 3, 1, 1)})  # fmt: skip
    assert computed_constants(load(model)).keys() == {"y"}


def test_a_network_without_such_nodes_has_none():
    model = network("y = Conv (x, w)", outputs="float[N, 3, 8, 8] y", weights={"w": weight(3, 3, 1, 1)})
    assert computed_constants(load(model)) == {}


def test_what_each_run_draws_is_none():
    nodes = "r = RandomNormal <shape = [3, 1, 1], seed = 1.0> () v = Abs (r) k = Abs (w) c = Conv (x, k) y = Add (c, v)"
    model = network(nodes, outputs="float[N, 3, 8, 8] y", weights={"w": weight(3, 3, 1, 1)})
    assert computed_constants(load(model)).keys() == {"k"}
