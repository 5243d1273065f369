"""Whoever plans or calibrates a model sees the same graph of it."""

from __future__ import annotations

import numpy as np
from networks import network, weight

from pconv_onnx import calibrate, inspect, rewrite
from pconv_onnx.graph.passes.pipeline import prepared, runnable

# A GELU that divides by what is computed from constants.
GELU = """
    root = Mul (two, half) s = Div (c, root) e = Erf (s) t = Add (e, one) m = Mul (c, t) y = Mul (m, half)
"""


def gelu():
    constants = {"two": np.float32(2), "one": np.float32(1), "half": np.float32(0.5)}
    return network(f"c = Conv (x, w) {GELU}", weights={"w": weight(3, 3, 1, 1), **constants})


def test_what_is_computed_of_constants_is_one_for_calibrate_as_well():
    (listed,) = inspect(gelu())["activations"]
    assert listed["status"] == "needs-calibration"
    (row,) = calibrate(gelu(), "random", steps=4).summary()["activations"]
    assert (row["name"], row["status"]) == (listed["name"], "calibrated")
    assert len(rewrite(gelu(), calibration="random", steps=4).plan.neurons) == 1


def test_a_network_is_prepared_once():
    network_ = prepared(gelu())
    assert prepared(network_).proto == network_.proto


def test_what_is_run_is_what_was_given():
    model = gelu()
    assert runnable(model).proto == model
    assert prepared(model).proto != model
