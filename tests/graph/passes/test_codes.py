"""Codes that are only moved are dequantised first: values stay, in every bit, and pairs stand side by side."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from harness import onnxruntime_of
from networks import MODES, network

from pconv_onnx import PconvError, inspect, rewrite, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.passes.codes import dequantised_first

X = np.random.default_rng(0).normal(0, 4, (5, 3, 8, 8)).astype(np.float32)
WEIGHTS = {
    "s": np.float32(0.0625), "z": np.array(0, np.uint8), "other": np.float32(0.125), "five": np.array(5, np.uint8),
    "flat": np.array([0, 192]), "axes": np.array([2]), "first": np.array([0]), "last": np.array([4]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "some": np.array([2, 0]), "reps": np.array([1, 2, 1, 1]),
    "scales": np.float32([1, 1, 2, 2]), "code": np.full((1, 3, 8, 8), 9, np.uint8), "parts": np.array([1, 2]),
    "roi": np.float32([0, 0, 0, 0, 1, 1, 2, 2]),
}  # fmt: skip
START = "r = Relu (x) q = QuantizeLinear (r, s, z) "
END = " y = DequantizeLinear (t, s, z)"

MOVED = {
    "Transpose": "t = Transpose <perm = [0, 2, 3, 1]> (q)",
    "Reshape": "t = Reshape (q, flat)",
    "Flatten": "t = Flatten (q)",
    "Squeeze and Unsqueeze": "u = Unsqueeze (q, axes) t = Squeeze (u, axes)",
    "Slice": "t = Slice (q, first, last, axes)",
    "MaxPool": "t = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q)",
    "Concat of itself": "t = Concat <axis = 1> (q, q)",
    "Concat with a constant": "t = Concat <axis = 0> (q, code)",
    "Gather": "t = Gather <axis = 1> (q, some)",
    "Tile": "t = Tile (q, reps)",
    "SpaceToDepth": "t = SpaceToDepth <blocksize = 2> (q)",
    "Pad with nothing": "t = Pad (q, pads)",
    "Pad with a code": "t = Pad (q, pads, five)",
    "Resize": "t = Resize <mode = \"nearest\", coordinate_transformation_mode = \"asymmetric\","
              " nearest_mode = \"floor\"> (q, , scales)",
    "several": "u = Transpose <perm = [0, 2, 3, 1]> (q) v = MaxPool <kernel_shape = [1, 1]> (u) t = Flatten (v)",
}  # fmt: skip


def moving(nodes: str, **options):
    shape = "float" if "outputs" in options else "float[N, A, B, C]"
    return network(START + nodes + options.pop("end", END), outputs=options.pop("outputs", f"{shape} y"),
                   weights=WEIGHTS, **options)  # fmt: skip


def outputs_of(nodes: str) -> str:
    return "float[N, M] y" if "Reshape" in nodes or "Flatten" in nodes else "float[N, A, B, C] y"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", MOVED)
def test_codes_that_are_moved_are_converted(case, mode):
    model = moving(MOVED[case], outputs=outputs_of(MOVED[case]))
    (row,) = inspect(model)["activations"]
    assert (row["status"], row["levels"], row["op_types"]) == (
        "converted", 255, ["Relu", "QuantizeLinear", "DequantizeLinear"],
    )  # fmt: skip
    try:
        expected = onnxruntime_of(model)(X)
    except PconvError as error:
        pytest.skip(f"this onnxruntime has no such operator of codes: {error}")
    result = rewrite(model, mode=mode)
    np.testing.assert_array_equal(onnxruntime_of(result.model)(X), expected)
    assert verify(model, result.model, {"x": X}).verdict == "equal"


def test_parts_are_each_moved():
    nodes = "u, v = Split <axis = 1> (q, parts) a = Transpose <perm = [0, 1, 3, 2]> (v)"
    end = " d = DequantizeLinear (u, s, z) e = DequantizeLinear (a, s, z) y = Concat <axis = 1> (d, e)"
    model = moving(nodes, end=end, outputs="float[N, A, B, C] y")
    result = rewrite(model)
    assert [activation.status for activation in result.plan.activations] == ["converted"]
    np.testing.assert_array_equal(onnxruntime_of(result.model)(X), onnxruntime_of(model)(X))


STAY = {
    "read in two ways": ("t = Flatten (q)", " d = DequantizeLinear (t, s, z) e = DequantizeLinear (t, other, z)"
                         " y = Sub (d, e)"),
    "read as codes": ("t = Flatten (q)", " d = DequantizeLinear (t, s, z) c = Cast <to = 1> (t) y = Sub (d, c)"),
    "cropped": ("t = Resize <mode = \"nearest\", coordinate_transformation_mode = \"tf_crop_and_resize\","
                " extrapolation_value = 7.0> (q, roi, scales) w = Flatten (t)", " y = DequantizeLinear (w, s, z)"),
    "interpolated": ("t = Resize <mode = \"linear\"> (q, , scales) w = Flatten (t)", " y = DequantizeLinear (w, s, z)"),
}  # fmt: skip


@pytest.mark.parametrize("case", STAY)
def test_other_codes_stay(case):
    nodes, end = STAY[case]
    loaded = load(moving(nodes, end=end, outputs="float[N, M] y"))
    moved = dequantised_first(loaded)
    assert [node.op_type for node in moved.proto.graph.node][:2] == ["Relu", "QuantizeLinear"]
    assert moved is loaded or case in ("interpolated", "cropped")
    np.testing.assert_array_equal(onnxruntime_of(moved.proto)(X), onnxruntime_of(loaded.proto)(X))


def test_weights_that_are_moved_stay():
    nodes = "t = Transpose <perm = [1, 0]> (m) d = DequantizeLinear (t, s, z) f = Flatten (x) y = MatMul (f, d)"
    model = network(nodes, outputs="float[N, M] y", weights={**WEIGHTS, "m": np.ones((7, 192), np.uint8)})
    loaded = load(model)
    assert dequantised_first(loaded) is loaded


@pytest.mark.parametrize("scale", [-0.0625, np.inf])
def test_codes_of_a_scale_that_is_not_positive_stay(scale):
    nodes = "t = MaxPool <kernel_shape = [2, 2]> (q)"
    model = network(START.replace("s, z", "n, z") + nodes + END.replace("s, z", "n, z"),
                    outputs="float[N, A, B, C] y", weights={**WEIGHTS, "n": np.float32(scale)})  # fmt: skip
    loaded = load(model)
    assert dequantised_first(loaded) is loaded


def test_codes_that_two_branches_read_are_dequantised_in_each():
    branch = """{name}_branch = {name} () => ({name}_y) {{
        {name}_r = {op} (x) {name}_q = QuantizeLinear ({name}_r, s, z) {name}_t = Concat <axis = 1> ({name}_q, q)
        {name}_y = DequantizeLinear ({name}_t, s, z) }}"""
    then, other = branch.format(name="then", op="Abs"), branch.format(name="else", op="Neg")
    nodes = f"{START} m = ReduceMax <keepdims = 0> (x) b = Cast <to = 9> (m) y = If (b) <{then}, {other}>"
    model = network(nodes, outputs="float[N, M, 8, 8] y", weights=WEIGHTS)
    moved = dequantised_first(load(model))
    assert "DequantizeLinear" in [node.op_type for node in moved.proto.graph.node[-1].attribute[0].g.node]
    np.testing.assert_array_equal(onnxruntime_of(moved.proto)(X), onnxruntime_of(model)(X))
    onnx.checker.check_model(moved.proto)
