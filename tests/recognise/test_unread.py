"""Nothing that makes values discrete between linear layers is passed over in silence."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, qcfs, weight

from pconv_onnx import PconvError, inspect, rewrite

WEIGHTS = {"w": weight(3, 3, 1, 1), "one": 1.0, "two": 2.0, "n": np.array([0, -1])}
ENDS = "c = Conv (x, w) {} y = Conv (d, w)"

LISTED = {
    "a rounding": ("d = Round (c)", "Round has no Clip before or behind it"),
    "a floor of a computed scale": ("m = ReduceMax (c) a = Div (c, m) f = Floor (a) d = Mul (f, m)",
                                    "Floor has no Clip before or behind it"),
    "a comparison of two values": ("a = Neg (c) b = Greater (c, a) d = Where (b, c, a)",
                                   "compares two computed values"),
    "a choice between values": ("a = Exp (c) b = Greater (c, one) d = Where (b, c, a)", "becomes no value of its own"),
    "integers": ("i = Cast <to = 6> (c) d = Cast <to = 1> (i)", "it makes integers of floats"),
    "booleans": ("i = Cast <to = 9> (c) d = Cast <to = 1> (i)", "it makes integers of floats"),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTED)
def test_what_is_in_no_activation_is_listed_with_a_remedy(case):
    nodes, reason = LISTED[case]
    model = network(ENDS.format(nodes), weights=WEIGHTS)
    (row,) = (row for row in inspect(model)["activations"] if row["encoding"] == "unread")
    assert row["status"] == "refused"
    assert reason in row["reason"]
    with pytest.raises(PconvError, match="nothing to convert"):
        rewrite(model)


@pytest.mark.parametrize("nodes", [
    "r = Round (x) d = Conv (r, w)",  # in front of all layers
    "c = Conv (x, w) d = Neg (c) r = Round (d)",  # behind the last, and read by none
    "s = Shape (x) f = Cast <to = 1> (s) h = Div (f, two) i = Cast <to = 7> (h) c = Conv (x, w) d = Neg (c)",
    "c = Conv (x, w) s = Shape (c) f = Cast <to = 1> (s) h = Mul (f, one) i = Cast <to = 7> (h) d = Reshape (c, i)",
])  # fmt: skip
def test_what_is_not_between_layers_is_not(nodes):
    model = network(f"{nodes} y = Conv (d, w)", weights=WEIGHTS)
    assert inspect(model)["activations"] == []


def test_a_neuron_that_no_output_depends_on_is_not_converted():
    model = network(qcfs("x", "y") + qcfs("x", "z") + "m = Shape (z)",
                    outputs="float[N, 3, 8, 8] y, int64[4] m")  # fmt: skip
    rows = {row["name"]: row for row in inspect(model)["activations"]}
    assert [row["status"] for row in rows.values()] == ["converted", "refused"]
    assert "no output depends on its values" in list(rows.values())[1]["reason"]


def test_what_cancels_is_no_neuron():
    """QKeras writes `p + (−p + q)`, of which q alone is left."""
    p = qcfs("c", "p")
    nodes = f"c = Conv (x, w) {p} r = Round (c) q = Clip (r, zero, four) o = Neg (p) s = Add (o, q) d = Add (p, s)"
    model = network(f"{nodes} y = Conv (d, w)", weights={**WEIGHTS, "four": 4.0})
    (row,) = inspect(model)["activations"]
    assert (row["status"], row["op_types"]) == ("converted", ["Round", "Clip"])


def test_an_activation_in_front_of_a_scaled_quantiser_is_not_sent_to_calibrate():
    """The neuron encodes its output; `calibrate` would say that all activations have levels."""
    nodes = (
        "c = Conv (x, w) a = Elu (c) s = Div (a, two) q = QuantizeLinear (s, one, z) d = DequantizeLinear (q, one, z)"
    )
    model = network(f"{nodes} y = Conv (d, w)", weights={**WEIGHTS, "z": np.array(0, np.uint8)})
    analog, neuron = inspect(model)["activations"]
    assert neuron["status"] == "converted"
    assert analog["reason"].endswith("the neuron behind it encodes its output")
