"""Sizes that a graph computes become constants where its shapes tell them, and the values stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import network, qcfs
from onnx.reference import ReferenceEvaluator

from pconv_onnx import rewrite, session
from pconv_onnx.graph import load
from pconv_onnx.graph.sizes import folded

X = (np.random.default_rng(0).integers(-8, 24, (5, 3, 8, 8)) / 8).astype(np.float32)
NUMBERS = {"zero_": np.array(0), "one_": np.array(1), "at1": np.array([1]), "two_": np.array(2), "at2": np.array([2]),
           "minus": np.array([-1]), "at0": np.array([0])}  # fmt: skip

COMPUTED = {
    # what is computed, the nodes, and the value that tensor k then has
    "gather": ("s = Shape (x) k = Gather (s, at1)", [3]),
    "scalar gather": ("s = Shape (x) g = Gather (s, two_) k = Unsqueeze (g, at0)", [8]),
    "negative index": ("s = Shape (x) k = Gather (s, minus)", [8]),
    "slice": ("s = Shape (x) k = Slice (s, at2, four_)", [8, 8]),
    "slice of slice": ("s = Shape <start = 1> (x) k = Slice (s, at0, at2, at0, at2)", [3]),
    "shape of a part": ("k = Shape <start = 1, end = 3> (x)", [3, 8]),
    "arithmetic": ("s = Shape (x) g = Gather (s, two_) h = Add (g, one_) d = Div (h, two_) m = Mul (d, two_)"
                   " n = Sub (m, one_) k = Unsqueeze (n, at0)", [7]),
    "casts": ("s = Shape (x) c = Cast <to = 6> (s) d = Cast <to = 7> (c) k = Gather (d, at2)", [8]),
    "concat": ("s = Shape (x) g = Gather (s, at1) h = Gather (s, at2) k = Concat <axis = 0> (g, h, minus)", [3, 8, -1]),
    "squeeze": ("s = Shape (x) g = Gather (s, at1) q = Squeeze (g) k = Unsqueeze (q, at0)", [3]),
}  # fmt: skip


def constants(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t).tolist()
        for node in model.graph.node
        if node.op_type == "Constant"
    }


@pytest.mark.parametrize("case", COMPUTED)
def test_a_size_that_shapes_tell_becomes_a_constant(case):
    nodes, expected = COMPUTED[case]
    weights = {name: value for name, value in (NUMBERS | {"four_": np.array([4])}).items() if name in nodes}
    model = network(nodes + " y = Cast <to = 1> (k)", outputs="float[K] y", weights=weights)
    result = folded(load(model)).proto
    onnx.checker.check_model(result, full_check=True)
    assert constants(result)["k"] == expected
    np.testing.assert_array_equal(*(ReferenceEvaluator(m).run(None, {"x": X})[0] for m in (model, result)))


@pytest.mark.parametrize(
    "nodes", ["s = Shape (x) k = Gather (s, at0)", "k = Shape (x)", "s = Size (x) k = Unsqueeze (s, at0)"]
)
def test_a_size_that_depends_on_the_batch_stays_computed(nodes):
    weights = {"at0": NUMBERS["at0"]} if "at0" in nodes else {}
    model = network(nodes + " y = Cast <to = 1> (k)", outputs="float[K] y", weights=weights)
    assert folded(load(model)).proto == model


def test_what_can_be_inferred_then_is_inferred():
    """A Slice by computed bounds has no shape until they are known; what follows needs it."""
    nodes = """
        s = Shape (x) g = Gather (s, at2) d = Div (g, at2) h = Slice (x, at0, d, at2)
        t = Shape (h) k = Gather (t, at2) y = Cast <to = 1> (k)
    """
    weights = {name: NUMBERS[name] for name in ("at0", "at2")}
    network_ = folded(load(network(nodes, outputs="float[K] y", weights=weights)))
    assert network_.shapes["h"][2] == 4
    assert constants(network_.proto)["k"] == [4]


def test_halves_of_channels_by_computed_bounds_stay_in_time():
    """As TorchScript exports `x.chunk(2, 1)` with an open batch."""
    nodes = qcfs("x", "s") + """
        n = Shape (s) g = Gather (n, at1) a = Add (g, at1) d = Div (a, at2) e = Mul (d, at2)
        l = Slice (s, at0, d, at1) r = Slice (s, d, e, at1) c = Concat <axis = 1> (r, l) y = GlobalAveragePool (c)
    """  # fmt: skip
    weights = {name: NUMBERS[name] for name in ("at0", "at1", "at2")}
    model = network(nodes, outputs="float[N, 3, 1, 1] y", weights=weights)
    result = rewrite(model)
    assert "Shape" not in {node.op_type for node in result.model.graph.node}
    assert type(result.plan.kinds["y"]).__name__ == "Current"
    np.testing.assert_array_equal(
        session(result.model).run(None, {"x": X})[0], ReferenceEvaluator(model).run(None, {"x": X})[0]
    )
