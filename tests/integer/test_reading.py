"""What of a network are integers: units and their axes through each step, and why others stay floats."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, qcfs, weight

from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.integer.inputs import input_codes
from pconv_onnx.integer.reading import Added, Copied, Moved, Negated, Reading, Summed, read
from pconv_onnx.integer.units import Layer
from pconv_onnx.plan.planning import make_plan

THETA = np.array([1, 2, 3, 4], np.float32).reshape(4, 1, 1)
A = qcfs("x", "a").replace("theta", "each")
B = qcfs("z", "b").replace("theta", "other")
CONSTANTS = {
    "each": THETA, "other": THETA[::-1].copy(), "w": weight(5, 4, 3, 3), "u": weight(8, 8), "k": np.float32(-0.5),
    "gain": np.array([1, -2, 0, 0.5], np.float32).reshape(4, 1, 1), "half_of": np.array([0, 2, 1, 3]),
    "columns": np.array([-1, 4, 64]), "rows": np.array([-1, 2, 128]), "axes": np.array([2, 3]), "all": np.array([1]),
    "last": np.array([-1]), "first": np.array([-(1 << 62)]), "two": np.array([2]),
    "starts": np.array([1]), "ends": np.array([3]), "ch": np.array([1]), "w2": weight(4, 4, 3, 3),
    "levels_up": np.array([0.25], np.float32),
}  # fmt: skip
EACH, OTHER = THETA.reshape(-1) / 4, THETA[::-1].reshape(-1) / 4


def reading_of(nodes: str, inputs: bool = False) -> Reading:
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    both = "float[N, 4, 8, 8] x, float[N, 4, 8, 8] z"
    model = network(nodes, inputs=both, outputs="float[N] y",
                    weights={name: value for name, value in CONSTANTS.items() if name in words})  # fmt: skip
    model.graph.output[0].type.tensor_type.ClearField("shape")
    codes = [input_codes("x", -1, 1, 8)] if inputs else []
    return read(make_plan(prepared(model)), codes, 8)


MOVES = {
    "MaxPool": ("y = MaxPool <kernel_shape = [2, 2]> (a)", EACH, 1),
    "Relu": ("y = Relu (a)", EACH, 1),
    "Flatten": ("t = GlobalMaxPool (a) y = Flatten (t)", EACH, 1),
    "Reshape": ("y = Reshape (a, columns)", EACH, 1),
    "Transpose": ("y = Transpose <perm = [0, 2, 3, 1]> (a)", EACH, 3),
    "Slice": ("y = Slice (a, starts, ends, ch)", EACH[1:3], 1),
    "Slice backwards": ("y = Slice (a, last, first, ch, last)", EACH[::-1], 1),
    "Slice of rows": ("y = Slice (a, starts, ends, two)", EACH, 1),
    "Gather": ("y = Gather <axis = 1> (a, half_of)", EACH[[0, 2, 1, 3]], 1),
    "Split": ("t, y = Split <axis = -3, num_outputs = 2> (a)", EACH[2:], 1),
    "Split of rows": ("t, y = Split <axis = 2, num_outputs = 2> (a)", EACH, 1),
    "Concat": (f"{B} y = Concat <axis = 1> (a, b)", np.concatenate([EACH, OTHER]), 1),
    "GlobalAveragePool": ("y = GlobalAveragePool (a)", EACH / 64, 1),
    "ReduceMean": ("y = ReduceMean <keepdims = 0> (a, axes)", EACH / 64, 1),
    "ReduceSum": ("y = ReduceSum <keepdims = 0> (a, axes)", EACH, 1),
    "AveragePool": ("y = AveragePool <kernel_shape = [2, 2]> (a)", EACH / 4, 1),
    "Mul": ("y = Mul (a, k)", EACH / 2, 1),
    "Div": ("y = Div (a, k)", EACH * 2, 1),
    "Neg": ("y = Neg (a)", EACH, 1),
    "a product of two": (qcfs("x", "a2") + qcfs("z", "b2") + "y = Mul (a2, b2)", [0.25], None),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVES)
def test_units_go_with_their_channels(case):
    nodes, unit, axis = MOVES[case]
    reading = reading_of(nodes if "a2" in nodes else f"{A} {nodes}")
    whole = reading.whole["y"]
    np.testing.assert_allclose(whole.unit.values(), unit)
    assert whole.axis == axis
    assert reading.stays == {}
    assert not any(isinstance(step, Copied) for step in reading.steps)


def test_factors_that_are_negative_or_zero_are_signs():
    reading = reading_of(f"{A} y = Mul (a, gain)")
    (negated,) = [step for step in reading.steps if isinstance(step, Negated)]
    np.testing.assert_array_equal(negated.signs, [1, -1, 0, 1])
    np.testing.assert_allclose(reading.whole["y"].unit.values()[[0, 1, 3]], [0.25, 1, 0.5])
    assert reading.whole["y"].unit.values()[2] > 0


def test_what_is_summed_meets_in_one_accumulator():
    reading = reading_of(f"{A} d = Conv (a, w2) e = Conv (a, w2) y = Add (d, e)")
    first, second = (step for step in reading.steps if isinstance(step, Layer))
    assert first.accumulator.root is second.accumulator.root
    np.testing.assert_array_equal(reading.whole["d"].unit.values(), reading.whole["y"].unit.values())
    (added,) = [step for step in reading.steps if isinstance(step, Added)]
    assert added.operands == [("d", 1), ("e", 1)]


def test_a_layer_takes_in_what_stands_behind_it_alone():
    reading = reading_of(f"{A} d = Conv (a, w2) m = Mul (d, k) n = Neg (m) y = Add (n, k)")
    (layer,) = [step for step in reading.steps if isinstance(step, Layer)]
    np.testing.assert_allclose(layer.weights, CONSTANTS["w2"].reshape(4, -1) * 0.5)
    np.testing.assert_allclose(layer.bias, [-0.5] * 4)
    assert layer.output == "y"
    assert "d" not in reading.whole


def test_a_layer_that_others_read_takes_in_nothing():
    reading = reading_of(f"{A} d = Conv (a, w2) m = Mul (d, k) y = Sub (d, m)")
    (layer,) = [step for step in reading.steps if isinstance(step, Layer)]
    assert layer.output == "d"
    np.testing.assert_allclose(reading.whole["m"].unit.values(), reading.whole["d"].unit.values() / 2)
    (added,) = [step for step in reading.steps if isinstance(step, Added)]
    assert added.operands == [("d", 1), ("m", -1)]


def test_an_average_keeps_its_sum():
    reading = reading_of(f"{A} y = AveragePool <kernel_shape = [8, 8]> (a)")
    (summed,) = [step for step in reading.steps if isinstance(step, Summed)]
    assert list(summed.axes) == [2, 3]


STAYS = {
    "its divisor differs at the border": "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)",
    "what its channels are worth cannot be followed": "y = Reshape (a, rows)",
    "it does not sum over them": "y = MatMul (a, u)",
    "which are floats": "d = Conv (a, w2) n = Sigmoid (d) y = Add (d, n)",
    "its operands have channels along different axes": "t = GlobalMaxPool (a) m = Flatten (t) n = Unsqueeze (m, all) "
    "l = Transpose <perm = [0, 2, 1]> (n) y = Add (l, n)",
    "it divides by a computed tensor": "y = Div (k, a)",
    "its weights are computed": "m = GlobalMaxPool (z) d = Mul (w, m) y = Conv (a, d)",
    "or they differ in what a level is worth": "y = ReduceMean <keepdims = 0> (a, all)",
}  # fmt: skip


@pytest.mark.parametrize("reason", STAYS)
def test_what_stays_floats_says_why(reason):
    reading = reading_of(f"{A} {STAYS[reason]}")
    assert reason in reading.stays["y"]
    assert "y" not in reading.whole


def test_inputs_that_are_quantised_are_integers():
    reading = reading_of("d = Conv (x, w2) y = MaxPool <kernel_shape = [2, 2]> (d) " + B.replace("b ", "v "), True)
    assert reading.whole["x"].unit.values() == [np.float32(2 / 255)]
    assert [type(step) for step in reading.steps if isinstance(step, Layer | Moved)] == [Layer, Moved]


def test_a_term_that_another_is_a_multiple_of_is_decided_before_their_sum():
    reading = reading_of(f"{A} d = Conv (a, w2) m = MaxPool <kernel_shape = [1, 1]> (d) n = Mul (m, k) y = Add (n, d)")
    unit = reading.whole["y"].unit.values()
    for name in ("n", "d"):
        multiples = reading.whole[name].unit.values() / unit
        np.testing.assert_allclose(multiples, np.rint(multiples), rtol=2e-3)
