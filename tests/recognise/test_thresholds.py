"""Thresholds that are compared with and counted in standard operators."""

from __future__ import annotations

import numpy as np
import pytest
from harness import assert_converted, found, onnxruntime_of
from networks import network
from onnx import helper
from opsets import opsets
from refusals import refusal_of

from pconv_onnx import rewrite, session
from pconv_onnx.graph.qonnx import standardised

NODES = """
    u = Unsqueeze (x, last)
    k = GreaterOrEqual (u, thresholds)
    c = Cast <to = 1> (k)
    n = ReduceSum <keepdims = 0> (c, last)
    y = Mul (n, scale)
"""
UNEVEN = np.array([-1.5, 0.25, 0.5, 3], np.float32)
PER_CHANNEL = np.stack([UNEVEN, UNEVEN + 1, 2 * UNEVEN])[:, np.newaxis, np.newaxis]


def counting(nodes: str = NODES, thresholds: np.ndarray = UNEVEN, opset: int = 17, **weights):
    given = {"last": np.array([-1]), "thresholds": thresholds, "scale": np.float32(0.3), **weights}
    return network(
        nodes, inputs="float[N, 3, 1, 1] x", outputs="float[N, 3, 1, 1] y", opset=opset,
        weights={name: value for name, value in given.items() if name in nodes},
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("opset", opsets(13, 17, 23))
@pytest.mark.parametrize(
    "thresholds",
    [UNEVEN, UNEVEN[::-1], UNEVEN[:1], PER_CHANNEL, np.array([0, 1, np.inf], np.float32), np.zeros(3, np.float32)],
)  # fmt: skip
def test_the_value_is_the_source_s_at_every_threshold(thresholds, opset, mode):
    model = counting(thresholds=thresholds, opset=opset)
    assert_converted(model, onnxruntime_of(model), mode, levels=thresholds.shape[-1])


@pytest.mark.parametrize("scale", [np.float32(0.3), np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1)])
@pytest.mark.parametrize(("counts", "zero"), [(1, 1), (4, 4), (0.5, 0), (5, 0)])
def test_an_offset_that_makes_a_level_zero_is_the_neuron_s(counts, zero, scale):
    """An Add of anything else stays behind it."""
    nodes = NODES.replace("y = Mul", "m = Mul") + "y = Add (m, offset)"
    model = counting(nodes, scale=scale, offset=-np.float32(counts) * scale)
    (activation,) = found(model)
    assert (activation.spec.zero, activation.nodes[-1].op) == (zero, "Add" if zero else "Mul")
    for mode in ("parallel", "folded"):
        x = np.linspace(-3, 8, 300, dtype=np.float32).reshape(100, 3, 1, 1)
        expected = onnxruntime_of(model)(x)
        np.testing.assert_allclose(session(rewrite(model, mode=mode).model).run(None, {"x": x})[0], expected, atol=1e-6)
        assert zero == 0 or (expected == 0).any()


@pytest.mark.parametrize(
    ("change", "weights"),
    [
        ({"y = Mul (n, scale)": "y = Mul (scale, n)"}, {}),
        ({"y = Mul (n, scale)": "y = Identity (n)"}, {}),
        ({"scale)": "scale)"}, {"scale": np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1)}),
        ({"last)": "four)"}, {"four": np.array([4])}),
    ],
)
def test_spellings(change, weights):
    nodes = NODES
    for old, new in change.items():
        nodes = nodes.replace(old, new)
    model = counting(nodes, **weights)
    assert_converted(model, onnxruntime_of(model), "parallel", levels=4)


def test_even_thresholds_take_any_number_of_steps():
    even = counting(thresholds=np.arange(1, 9, dtype=np.float32) / 4)
    (neuron,) = rewrite(even, steps=4).plan.neurons.values()
    np.testing.assert_allclose(neuron.thresholds, [[0.375, 0.875, 1.375, 1.875]], rtol=1e-6)
    assert "are not evenly spaced" in refusal_of(rewrite, counting(), steps=3)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_multi_thresholds_written_out_are_these(layout):
    model = network("y = Mul (x, scale)", weights={"scale": np.float32(0.5), "thresholds": PER_CHANNEL[:, 0, 0]},
                    inputs="float[N, 3, 1, 1] x" if layout == "NCHW" else "float[N, 1, 1, 3] x")  # fmt: skip
    node = helper.make_node(
        "MultiThreshold", ["x", "thresholds"], ["m"], domain="qonnx.custom_op.general", data_layout=layout
    )
    model.graph.node[0].input[0] = "m"
    model.graph.node.insert(0, node)
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    (activation,) = found(standardised(model))
    assert (activation.encoding, activation.status) == ("thresholds", "converted")
    assert activation.spec.channel_axis == (1 if layout == "NCHW" else 3)
    np.testing.assert_array_equal(activation.spec.neuron().thresholds, PER_CHANNEL[:, 0, 0])


REFUSED = {
    "computed thresholds": (
        NODES.replace("(u, thresholds)", "(u, w)").replace("k =", "v = Unsqueeze (x, last) w = Exp (v) k ="), {},
        "are computed; constants are needed",
    ),
    "one that is always reached": (
        NODES, {"thresholds": np.array([-np.inf, 0], np.float32)}, "does not stay between the values of counts 0 and 2",
    ),
    "a NaN": (NODES, {"thresholds": np.array([0, np.nan], np.float32)}, "have a NaN"),
    "one number": (NODES, {"thresholds": np.float32(0)}, "a last axis of 1 to 65535 of them is needed"),
    "along another axis": (
        NODES, {"thresholds": np.zeros((3, 1, 1, 1, 4), np.float32)}, "runs along axis 0, which is not",
    ),
    "more channels than there are": (
        NODES, {"thresholds": np.arange(8, dtype=np.float32).reshape(2, 1, 1, 4)}, "holds 2 values along axis 1",
    ),
    "counted in doubles": (
        NODES.replace("to = 1", "to = 11").replace("y =", "o = Cast <to = 1> (n) y =").replace("Mul (n", "Mul (o"),
        {}, "counts in float64, and its data are float32",
    ),
    "a scale that is not positive": (NODES, {"scale": np.float32(-1)}, "scales by -1; a scale must be positive"),
    "counts that others read": (
        NODES.replace("y =", "s = Mul (n, scale) z = ReduceMax (c) y =").replace("(n, scale)\n", "(s, z)\n"),
        {}, "is also used by ReduceMax",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused_with_the_reason(case):
    nodes, weights, reason = REFUSED[case]
    (activation,) = (one for one in found(counting(nodes, **weights)) if one.encoding == "thresholds")
    assert activation.status == "refused"
    assert reason in activation.reason


@pytest.mark.parametrize(
    "nodes",
    [NODES.replace("keepdims = 0", "keepdims = 1"), NODES.replace("GreaterOrEqual", "Greater"),
     NODES.replace("(c, last)", "(c, one)"), NODES.replace("(x, last)", "(x, one)")],
)  # fmt: skip
def test_what_does_not_count_thresholds_is_something_else(nodes):
    model = counting(nodes, one=np.array([1]), thresholds=np.zeros((1, 1, 1, 1, 1), np.float32))
    assert all(activation.encoding != "thresholds" for activation in found(upgrade(model)))


def upgrade(model):
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    return model
