"""Sums of straight-through gradients become what is left of them, in every spelling, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from harness import onnxruntime_of
from networks import MODES, network

from pconv_onnx import inspect, rewrite, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.passes.straight_through import without_straight_through

# Powers of two: sums are then exact, whatever their order.
ROUNDED = "a = Div (x, s) r = Round (a) o = Sub (r, a) b = Add (a, o) c = Clip (b, low, high) q = Mul (c, s)"
QUANTISER = "a = Div (x, s) b = Round (a) c = Clip (b, low, high) q = Mul (c, s)"
WEIGHTS = {"s": 0.25, "low": 0.0, "high": 15.0, "k": 3.0}
X = (np.random.default_rng(0).integers(-64, 512, (50, 3, 8, 8)) / 64).astype(np.float32)

SPELLINGS = {
    "x + (q − x)": "d = Sub (q, x) y = Add (x, d)",
    "(q − x) + x": "d = Sub (q, x) y = Add (d, x)",
    "x + (−x + q)": "n = Neg (x) d = Add (n, q) y = Add (x, d)",
    "x + (q + −x)": "n = Neg (x) d = Add (q, n) y = Add (x, d)",
    "x − (x − q)": "d = Sub (x, q) y = Sub (x, d)",
    "a stopped gradient": "d = Sub (q, x) i = Identity (d) y = Add (x, i)",
    "a stopped gradient on either side": "i = Identity (x) j = Identity (q) d = Sub (j, i) y = Add (x, d)",
    "(x − x) + q": "i = Identity (x) d = Sub (x, i) y = Add (d, q)",
    "q − (x − x)": "i = Identity (x) d = Sub (x, i) y = Sub (q, d)",
    "around something else": "p = Tanh (x) n = Neg (p) d = Add (n, q) y = Add (p, d)",
    "within another": "d = Sub (q, x) e = Add (x, d) p = Sub (e, x) y = Add (x, p)",
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quantiser", [QUANTISER, ROUNDED], ids=["", "around the rounding as well"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_left_is_the_quantiser(spelling, quantiser, mode):
    nodes = quantiser + SPELLINGS[spelling]
    model = network(nodes, weights=WEIGHTS)
    (row,) = inspect(model)["activations"]
    assert (row["status"], row["levels"]) == ("converted", 15)
    result = rewrite(model, mode=mode)
    assert not {"Add", "Sub", "Tanh"}.intersection(node.op_type for node in result.model.graph.node)
    np.testing.assert_array_equal(onnxruntime_of(result.model)(X), onnxruntime_of(model)(X))
    assert verify(model, result.model, {"x": X}).verdict == "equal"


def test_a_sum_that_rounds_is_measured_and_said():
    """In floats x + (q − x) is q up to the rounding of x, which is not the neuron's."""
    model = network(QUANTISER + SPELLINGS["x + (q − x)"], weights=WEIGHTS | {"s": 0.3, "high": 14.0})
    result = verify(
        model, rewrite(model).model, {"x": np.random.default_rng(1).normal(0, 100, X.shape).astype(np.float32)}
    )
    assert 0 < result.respelled.max_abs_diff < 1e-4
    assert (result.verdict, result.differences) == ("measured", [])
    assert any("straight-through gradients" in told for told in result.not_compared)


OTHERS = {
    "nothing cancels": QUANTISER + "y = Add (x, q)",
    "another sign": QUANTISER + "d = Sub (x, q) y = Add (x, d)",
    "twice": QUANTISER + "d = Sub (q, x) e = Add (d, x) y = Add (e, q)",
    "minus q": QUANTISER + "d = Add (x, q) y = Sub (x, d)",
    "no quantiser": "q = Exp (x) d = Sub (q, x) y = Add (x, d)",
    "a constant that rounds": QUANTISER + "d = Add (q, magic) y = Sub (d, magic)",
    "a mask": QUANTISER + "g = Greater (v, k) m = Where (g, minus, low) d = Add (q, m) y = Sub (d, m)",
    "something else's quantiser": QUANTISER.replace("(x, s)", "(v, s)") + "d = Sub (q, x) y = Add (x, d)",
    "a chosen slope": "g = Greater (x, low) e = Mul (x, s) q = Where (g, x, e) d = Sub (q, x) y = Add (x, d)",
    "levels and something else": QUANTISER + "e = Exp (q) f = Add (q, e) d = Sub (f, x) y = Add (x, d)",
    "a product": QUANTISER + "d = Sub (q, x) e = Mul (d, k) y = Add (x, e)",
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_sums_stay(case):
    inputs = "float[N, 3, 8, 8] x, float[N, 3, 8, 8] v"
    loaded = load(network(OTHERS[case], inputs=inputs, weights=WEIGHTS | {"magic": 12582912.0, "minus": -1e9}))
    kept = without_straight_through(loaded)
    folded = {"twice": ["e"]}.get(case, [])
    made = [node.output[0] for node in kept.proto.graph.node if node.op_type == "Identity"]
    assert made == folded
    if not folded:
        assert kept is loaded


def test_what_would_be_broadcast_stays():
    nodes = QUANTISER.replace("(x, s)", "(v, s)") + "d = Sub (q, x) y = Add (x, d)"
    loaded = load(network(nodes, inputs="float[N, 3, 8, 8] x, float[1, 3, 1, 1] v", weights=WEIGHTS))
    assert without_straight_through(loaded) is loaded


def test_what_others_read_stays_there():
    model = network(QUANTISER + "d = Sub (q, x) e = Add (x, d) f = Abs (d) y = Add (e, f)", weights=WEIGHTS)
    result = rewrite(model)
    assert "Sub" in [node.op_type for node in result.model.graph.node]
    np.testing.assert_array_equal(onnxruntime_of(result.model)(X), onnxruntime_of(model)(X))
