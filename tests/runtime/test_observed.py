"""Shapes behind operators that onnx does not know."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from networks import network, weight

from pconv_onnx.graph import Network
from pconv_onnx.runtime import observed
from pconv_onnx.runtime.observed import with_observed_shapes

FUSED = """
    s = com.microsoft.SkipSimplifiedLayerNormalization (x, x, g) h = MatMul (s, w)
    b = com.microsoft.Trilu (h) m = ReduceMax <axes = [1], keepdims = 0> (b) y = Relu (m)
"""
WEIGHTS = {"g": weight(8, 1)[:, 0], "w": weight(8, 4), "c": weight(4, 1)[:, 0]}


def fused(nodes: str = FUSED, x: str = "float[N, S, 8] x") -> Network:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> test ({x}) => (float y) {{ {nodes} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in WEIGHTS.items())
    return Network(model, "the model", hashlib.sha256(model.SerializeToString()).hexdigest())


def test_ranks_types_and_sizes_are_those_of_a_run():
    given = fused()
    assert given.shapes.keys().isdisjoint({"s", "h", "b", "m", "y"})
    found = with_observed_shapes(given)
    assert {name: found.shapes[name] for name in "shbmy"} == {
        "s": ("N", "S", 8), "h": ("N", "S", 4), "b": ("N", "S", 4), "m": ("N", 4), "y": ("N", 4)
    }  # fmt: skip
    assert {found.dtypes[name] for name in "shbmy"} == {np.dtype(np.float32)}
    assert found.proto == given.proto


def test_a_size_that_follows_no_name_is_open():
    flat = FUSED.replace("y = Relu (m)", "f = Reshape (b, minus) y = Relu (f)")
    given = fused("minus = Constant <value = int64[1] {-1}> () " + flat)
    found = with_observed_shapes(given)
    assert set(found.hints) == {"s", "b"}
    (size,) = found.shapes["f"]
    assert not isinstance(size, int)
    assert size != "N"


@pytest.fixture
def no_run(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it is run")

    monkeypatch.setattr(observed, "open_session", refuse)


@pytest.mark.usefixtures("no_run")
def test_networks_that_onnx_knows_are_not_run():
    model = network("z = Relu (x) r = Reshape (z, shape) y = Relu (r)", inputs="float[N, 8] x, int64[R] shape",
                    outputs="float[a, b, c] y")  # fmt: skip
    given = Network(model, "the model", "")
    assert with_observed_shapes(given) is given


def test_a_network_is_run_once(request):
    found = with_observed_shapes(fused())
    request.getfixturevalue("no_run")
    assert with_observed_shapes(found) is found


def test_a_network_that_does_not_run_is_left_as_it_is():
    given = fused(FUSED.replace("Trilu", "NoOperator"))
    assert with_observed_shapes(given) is given


def test_a_size_that_images_need_is_found():
    """Halved five times, so that few pixels would leave none."""
    pools = "p0 = Identity (x) " + " ".join(
        f"p{i + 1} = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (p{i})" for i in range(5)
    )
    given = fused(pools + "b = com.microsoft.BiasGelu (p5, one) one = Constant <value = float[1] {1}> () y = Relu (b)",
                  "float[N, 3, H, W] x")  # fmt: skip
    found = with_observed_shapes(given)
    assert found.shapes["b"][:2] == ("N", 3)


BEHIND = {
    "a part of an axis": ("t = Slice (m, zero, four, one)", 3),
    "positions up to a length": ("t = Slice (m, zero, sixteen, one)", 40),
    "an axis with a border": ("t = Pad (m, border)", 4),
}


@pytest.mark.parametrize("case", BEHIND)
def test_sizes_behind_such_an_operator_are_no_numbers_that_a_run_had(case):
    """What follows it is inferred: of a run, sizes would be constants that other inputs do not have."""
    nodes, size = BEHIND[case]
    text = f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> test (float[N, S, W] x) => (float[K] y)
        <float[1, 1] w = {{1.0}}, int64[1] zero = {{0}}, int64[1] four = {{4}}, int64[1] sixteen = {{16}},
         int64[1] one = {{1}}, int64[6] border = {{0, 3, 0, 0, 3, 0}}>
        {{ m = com.microsoft.FusedMatMul (x, w) {nodes} r = Relu (t) s = Shape (r) c = Shape (x)
          e = Equal (s, c) a = Cast <to = 1> (e) b = Cast <to = 1> (s) y = Add (a, b) }}"""
    model = onnx.parser.parse_model(text)
    given = Network(model, "the model", hashlib.sha256(model.SerializeToString()).hexdigest())
    found = with_observed_shapes(given)
    x = np.zeros((2, size, 1), np.float32)
    before, after = (onnxruntime.InferenceSession(one.proto.SerializeToString()).run(None, {"x": x})[0]
                     for one in (given, found))  # fmt: skip
    np.testing.assert_array_equal(before, after)
