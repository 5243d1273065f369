"""What each operator does to the kinds in time, and that every decision gives the source's value."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from networks import network, qcfs, weight
from onnx.checker import check_model

from pconv_onnx import session
from pconv_onnx.rewriting import rewrite
from pconv_onnx.temporal.rules import TRANSFER_RULES

# T = 4 and values on a grid of powers of two: everything below is exact in float32, so outputs are equal in every bit.
X = (np.random.default_rng(0).integers(-8, 24, (5, 3, 8, 8)) / 8).astype(np.float32)
THETA = np.array([0.5, 1, 4], dtype=np.float32).reshape(3, 1, 1)


def dyadic(*shape: int) -> np.ndarray:
    return (np.random.default_rng(1).integers(-4, 5, shape) / 4).astype(np.float32)


def rewritten(nodes: str, **arguments):
    """The rewriting of a network, after showing that it computes what the source computes."""
    model = network(nodes, **arguments)
    result = rewrite(model)
    check_model(result.model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = onnxruntime.InferenceSession(model.SerializeToString(), options)
    feed = {entry.name: X[:, :, 0, 0] if len(entry.shape) == 2 else X for entry in source.get_inputs()}
    for expected, found in zip(source.run(None, feed), session(result.model).run(None, feed), strict=True):
        np.testing.assert_array_equal(found, expected)
    return result


def kind_of(name: str, result) -> str:
    kind = result.plan.kinds.get(name)
    return type(kind).__name__ if kind is not None else "Static"


CHECKS = (np.indices((8, 8)).sum(0) % 2).astype(bool)
OPEN = {"outputs": "float[N, M, H, W] y"}
FLAT = {"outputs": "float[N, K] y"}
S = qcfs("x", "s")
PER_CHANNEL = {"theta": THETA}

CASES = [
    # nodes after the neuron, kind of y's predecessor z, further arguments
    ("z = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (s, w, b)", "Current",
     {"w": dyadic(4, 3, 3, 3), "b": dyadic(4)}),
    ("z = Conv <group = 3> (s, w)", "Current", {"w": dyadic(6, 1, 3, 3)}),
    ("z = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (s)", "Current", {}),
    ("z = GlobalAveragePool (s)", "Current", {}),
    ("z = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s)", "Spikes", {}),
    ("z = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (s)", "Spikes", {}),
    ("z = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (s)", "Spikes", PER_CHANNEL),
    ("z = GlobalMaxPool (s)", "Spikes", PER_CHANNEL),
    ("z = MaxPool <kernel_shape = [2, 2], dilations = [7, 7], pads = [1, 1, 1, 1]> (s)", "Static", {}),
    ("c = Conv (s, w) z = MaxPool <kernel_shape = [2, 2]> (c)", "Static", {"w": dyadic(4, 3, 1, 1)}),
    ("z = Identity (s)", "Spikes", PER_CHANNEL),
    ("z = Dropout (s)", "Spikes", PER_CHANNEL),
    ("z, unread = Dropout (s)", "Spikes", PER_CHANNEL),
    ("d, kept = Dropout (s) z = Where (kept, d, x)", "Static", {}),
    ("z = Add (s, s)", "Current", {}),
    ("c = Conv (s, w) z = Add (c, s)", "Current", {"w": dyadic(3, 3, 1, 1)}),
    ("c = Conv (s, w) z = Sub (s, c)", "Current", {"w": dyadic(3, 3, 1, 1)}),
    ("c = Conv (s, w) z = Sum (s, c, s)", "Current", {"w": dyadic(3, 3, 1, 1)}),
    ("z = Add (s, b)", "Current", {"b": dyadic(3, 1, 1)}),
    ("z = Sub (b, s)", "Current", {"b": dyadic(1, 3, 1, 1)}),
    ("z = Add (s, b)", "Static", {"b": dyadic(5, 3, 8, 8)}),
    ("z = Add (s, x)", "Current", {}),
    ("z = Mean (s, x, s)", "Current", {}),
    ("z = Mul (s, b)", "Current", {"b": dyadic(3, 1, 1)}),
    ("z = Mul (b, s)", "Current", {"b": dyadic(1)}),
    ("z = Div (s, b)", "Current", {"b": np.array([2], dtype=np.float32)}),
    ("z = Mul (s, s)", "Static", {}),
    ("p = Add (s, b) z = Div (b, p)", "Static", {"b": np.array([4], dtype=np.float32)}),
    ("z = Softmax (s)", "Static", {}),
    ("z = Concat <axis = 1> (s, s)", "Spikes", {}),
    ("z = Concat <axis = 1> (s, s)", "Spikes", PER_CHANNEL),
    ("z = Concat <axis = 3> (s, s)", "Current", PER_CHANNEL),
    ("z = Concat <axis = 0> (s, s)", "Static", {}),
    ("z = Concat <axis = 1> (s, x)", "Current", {}),
    ("c = Conv (s, w) z = Concat <axis = 1> (s, c)", "Current", {"w": dyadic(4, 3, 1, 1)}),
    ("z = Concat <axis = 1> (s, s) m = MaxPool <kernel_shape = [2, 2]> (z)", "Spikes", PER_CHANNEL),
    ("z = Transpose <perm = [0, 2, 3, 1]> (s)", "Spikes", PER_CHANNEL),
    ("z = Transpose <perm = [1, 0, 2, 3]> (s)", "Static", {}),
    ("t = Transpose <perm = [0, 2, 3, 1]> (s) z = MaxPool <kernel_shape = [2, 1]> (t)", "Static", PER_CHANNEL),
    ("z = Pad (s, pads)", "Spikes", {"pads": np.array([0, 1, 2, 0, 0, 1, 0, 3])}),
    ("z = Pad (s, pads, fill)", "Current", {"pads": np.array([0, 0, 2, 0, 0, 0, 0, 3]), "fill": 0.25}),
    ("z = Pad <mode = \"reflect\"> (s, pads)", "Current", {"pads": np.array([0, 0, 2, 0, 0, 0, 0, 3]), **PER_CHANNEL}),
    ("z = Pad (s, pads)", "Static", {"pads": np.array([1, 0, 0, 0, 0, 0, 0, 0])}),
    ("z = Slice (s, from, to, on)", "Spikes",
     {"from": np.array([1]), "to": np.array([7]), "on": np.array([2]), **PER_CHANNEL}),
    ("z = Slice (s, from, to, on)", "Current",
     {"from": np.array([1]), "to": np.array([3]), "on": np.array([1]), **PER_CHANNEL}),
    ("z = Slice (s, from, to, on)", "Spikes", {"from": np.array([1]), "to": np.array([3]), "on": np.array([-3])}),
    ("z = Slice (s, from, to, on)", "Static", {"from": np.array([1]), "to": np.array([3]), "on": np.array([0])}),
    ("z = Slice (s, from, to)", "Static", {"from": np.array([1, 0]), "to": np.array([3, 2])}),
    ("z = ReduceMean (s, on)", "Current", {"on": np.array([2, 3])}),
    ("z = ReduceSum (s, on)", "Static", {"on": np.array([0])}),
    ("z = BatchNormalization (s, g, b, m, v)", "Current",
     {"g": dyadic(3), "b": dyadic(3), "m": dyadic(3), "v": np.array([1, 4, 0.25], dtype=np.float32)}),
    ("z = InstanceNormalization (s, g, b)", "Static", {"g": dyadic(3), "b": dyadic(3)}),
    # What has no time axis is there at each step.
    ("c = Conv (s, w) z = Add (x, c)", "Current", {"w": dyadic(3, 3, 1, 1)}),
    ("z = Sub (x, s)", "Current", {}),
    ("z = Sum (x, s, x)", "Current", {}),
    ("g = GlobalAveragePool (x) z = Mul (s, g)", "Current", {}),
    ("c = Conv (s, w) g = Mul (c, x) z = Identity (g)", "Current", {"w": dyadic(3, 3, 1, 1)}),
    ("g = ReduceMax <keepdims = 0> (x, all) z = Mul (s, g)", "Current", {"all": np.array([0, 1, 2, 3])}),
    ("a = Abs (x) b = Add (a, one) z = Div (s, b)", "Static", {"one": 1.0}),
    ("z = Concat <axis = -1> (x, s, x)", "Current", {}),
    ("z = Where (mask, s, x)", "Current", {"mask": CHECKS}),
    ("c = Conv (s, w) z = Where (mask, c, s)", "Current", {"w": dyadic(3, 3, 1, 1), "mask": CHECKS}),
    ("c = Greater (x, one) z = Where (c, s, b)", "Current", {"b": dyadic(3, 1, 1)}),
    ("c = Greater (s, one) z = Where (c, s, x)", "Current", {}),
    ("w = Where (mask, s, b) z = Clip (w, zero, one)", "Static", {"mask": CHECKS, "b": np.array(np.inf, np.float32)}),
    ("c = Greater (s, one) w = Where (mask, s, b) z = Clip (w, zero, one)", "Static",
     {"mask": CHECKS, "b": np.array(-np.inf, np.float32)}),
    ("z = Einsum <equation = \"nchw, cd -> ndhw\"> (s, w)", "Current", {"w": dyadic(3, 4)}),
    ("z = Einsum <equation = \"ij,nchj->nchi\"> (w, s)", "Current", {"w": dyadic(5, 8)}),
    ("z = Einsum <equation = \"nchw,n->nchw\"> (s, w)", "Static", {"w": dyadic(5)}),
    ("z = Einsum <equation = \"nchw,nchw->nchw\"> (s, s)", "Static", {}),
    ("z = Einsum <equation = \"nchw,c->cnhw\"> (s, w)", "Static", {"w": dyadic(3)}),
    ("z = Einsum <equation = \"n...,c->n...\"> (s, w)", "Static", {"w": dyadic(1)}),
    ("z = Neg (s)", "Current", PER_CHANNEL),
    ("z = Cast <to = 1> (s)", "Spikes", PER_CHANNEL),
    ("d = Cast <to = 11> (s) z = Cast <to = 1> (d)", "Static", {}),
    ("b = Exp (none) z = Clip (s, none, b)", "Static", {"none": 0.0}),
    ("a, b = Split <axis = 1> (s, parts) z = Identity (b)", "Spikes", {"parts": np.array([1, 2]), **PER_CHANNEL}),
    ("a, b = Split <axis = 2, num_outputs = 2> (s) z = Concat <axis = 1> (b, a)", "Spikes", PER_CHANNEL),
    ("a, b = Split <axis = 0, num_outputs = 2> (s) z = Identity (a)", "Static", {}),
    ("u = Unsqueeze (s, on) z = Squeeze (u, on)", "Spikes", {"on": np.array([1]), **PER_CHANNEL}),
    ("u = Unsqueeze (s, on) z = Squeeze (u, on)", "Spikes", {"on": np.array([-1]), **PER_CHANNEL}),
    ("u = Unsqueeze (s, on) z = Squeeze (u, on)", "Static", {"on": np.array([0])}),
    ("z = Gather <axis = 1> (s, at)", "Current", {"at": np.array([2, 0]), **PER_CHANNEL}),
    ("z = Gather <axis = -1> (s, at)", "Spikes", {"at": np.array([2, 0, 2]), **PER_CHANNEL}),
    ("g = Gather <axis = 2> (s, at) z = Unsqueeze (g, on)", "Spikes",
     {"at": np.array(5), "on": np.array([3]), **PER_CHANNEL}),
    ("z = Gather <axis = 0> (s, at)", "Static", {"at": np.array([0])}),
    ("d = SpaceToDepth <blocksize = 2> (s) z = DepthToSpace <blocksize = 2> (d)", "Spikes", {}),
    ("z = SpaceToDepth <blocksize = 2> (s)", "Current", PER_CHANNEL),
    ("z = ReduceMax <keepdims = 1> (s, on)", "Spikes", {"on": np.array([2, 3])}),
    ("z = ReduceMax <keepdims = 1> (s, on)", "Static", {"on": np.array([0])}),
    ("z = ReduceMax <keepdims = 1> (s, on)", "Spikes", {"on": np.array([2]), **PER_CHANNEL}),
    ("z = ReduceMin <keepdims = 1> (s, on)", "Spikes", {"on": np.array([-1]), **PER_CHANNEL}),
    ("m = ReduceMin <keepdims = 0> (s, on) z = Unsqueeze (m, on)", "Spikes", {"on": np.array([2]), **PER_CHANNEL}),
    ("t = Transpose <perm = [0, 2, 1, 3]> (s) m = ReduceMax <keepdims = 0> (t, on) z = Unsqueeze (m, on)", "Spikes",
     {"on": np.array([1]), **PER_CHANNEL}),
    ("z = ReduceMax <keepdims = 1> (s, on)", "Static", {"on": np.array([1]), **PER_CHANNEL}),
    ("t = Transpose <perm = [0, 1, 3, 2]> (s) z = Max (s, t)", "Spikes", {}),
    ("t = Transpose <perm = [0, 1, 3, 2]> (s) z = Min (s, t, s)", "Spikes", {}),
    ("t = Transpose <perm = [0, 1, 3, 2]> (s) z = Max (s, t)", "Static", PER_CHANNEL),
    ("z = Max (s, x)", "Static", {}),
    ("c = Conv (s, w) z = Min (s, c)", "Static", {"w": dyadic(3, 3, 1, 1)}),
    ("g = GlobalAveragePool (x) m = GlobalMaxPool (s) z = Expand (m, to)", "Spikes",
     {"to": np.array([1, 3, 4, 5]), **PER_CHANNEL}),
    ("f = Slice (s, from, to, on) z = Expand (f, sizes)", "Current",
     {"from": np.array([1]), "to": np.array([2]), "on": np.array([1]), "sizes": np.array([1, 6, 8, 8]), **PER_CHANNEL}),
    ("m = GlobalMaxPool (s) n = Shape (s) z = Expand (m, n)", "Spikes", {}),
    ("z = Tile (s, by)", "Spikes", {"by": np.array([1, 1, 2, 1]), **PER_CHANNEL}),
    ("z = Tile (s, by)", "Current", {"by": np.array([1, 2, 1, 3]), **PER_CHANNEL}),
    ("z = Tile (s, by)", "Static", {"by": np.array([2, 1, 1, 1])}),
    ("n = ReduceMax <keepdims = 0> (x, all) i = Cast <to = 7> (n) j = Mod (i, eight) g = Gather <axis = 3> (s, j)"
     " z = Unsqueeze (g, on)", "Spikes",
     {"all": np.array([0, 1, 2, 3]), "eight": np.array(8), "on": np.array([3]), **PER_CHANNEL}),
    ("g = Gather <axis = 3> (s, at) z = Squeeze (g, on)", "Spikes",
     {"at": np.array([[0, 2, 5]]), "on": np.array([3]), **PER_CHANNEL}),
    ("c = Conv (s, w) z = ReduceMax (c, on)", "Static", {"w": dyadic(4, 3, 1, 1), "on": np.array([2])}),
    ("z = ConvTranspose <strides = [2, 2]> (s, w)", "Current", {"w": dyadic(3, 4, 2, 2)}),
    ("z = Resize (s, , by)", "Spikes", {"by": np.array([1, 1, 2, 2], dtype=np.float32), **PER_CHANNEL}),
    ("z = Resize <mode = \"linear\"> (s, , by)", "Current", {"by": np.array([1, 1, 2, 2], dtype=np.float32)}),
    ("z = Resize <mode = \"cubic\", axes = [2, 3]> (s, , by)", "Current", {"by": np.array([0.5, 2], dtype=np.float32)}),
    ("z = Resize <axes = [2, 3]> (s, , , to)", "Spikes", {"to": np.array([16, 4]), **PER_CHANNEL}),
    ("n = Shape <end = 2> (s) k = Concat <axis = 0> (n, hw) z = Resize <mode = \"linear\"> (s, , , k)", "Current",
     {"hw": np.array([12, 16])}),
    ("z = Resize <coordinate_transformation_mode = \"tf_crop_and_resize\"> (s, roi, by)", "Static",
     {"roi": np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.float32), "by": np.array([1, 1, 2, 2], dtype=np.float32)}),
    ("z = MatMul (w, s)", "Current", {"w": dyadic(5, 8)}),
    ("e = Exp (none) z = Resize (s, , e)", "Static", {"none": np.zeros(4, dtype=np.float32)}),
    ("n = Shape (s) z = Resize <keep_aspect_ratio_policy = \"not_larger\"> (s, , , n)", "Static", {}),
]  # fmt: skip


@pytest.mark.parametrize("nodes, kind, weights", CASES)
def test_operators_on_spikes(nodes, kind, weights):
    """Then another neuron: what it gets is the same value in time or decoded."""
    last = "m" if " m =" in nodes else "z"
    nodes = S + nodes + qcfs(last, "y").replace("theta", "theta_").replace("_scaled", "_by")
    result = rewritten(nodes, weights={**weights, "theta_": 2.0}, **OPEN)
    assert kind_of("s", result) == "Spikes"
    assert kind_of("z", result) == kind


FLAT_CASES = [
    ("c = Clip (s, low, high) z = Flatten (c)", "Spikes", {"low": 0.0, "high": 6.0}),
    ("c = Clip (s, low) z = Flatten (c)", "Spikes", {"low": -1.0}),
    ("c = Clip (s, , high) z = Flatten (c)", "Static", {"high": 0.75}),
    ("f = Flatten (s) z = Mul (f, b)", "Static", {"b": np.array([np.inf], dtype=np.float32)}),
    ("r = Relu (s) z = Flatten (r)", "Spikes", {}),
    ("c = Conv (s, w) r = Relu (c) z = Flatten (r)", "Static", {"w": dyadic(4, 3, 1, 1)}),
    ("z = Flatten (s)", "Spikes", {}),
    ("f = Flatten (s) z = Div (f, b)", "Static", {"b": np.array([0], dtype=np.float32)}),
    ("z = Flatten (s)", "Current", PER_CHANNEL),
    ("z = Reshape (s, to)", "Spikes", {"to": np.array([-1, 192])}),
    ("z = Reshape (s, to)", "Spikes", {"to": np.array([0, -1])}),
    ("z = Reshape (s, to)", "Current", {"to": np.array([0, -1]), **PER_CHANNEL}),
    ("z = Reshape (s, to)", "Spikes", {"to": np.array([-1, 64])}),
    ("z = Reshape (s, to)", "Static", {"to": np.array([5, 192])}),
    ("z = Reshape (s, to)", "Static", {"to": np.array([15, -1])}),
    ("r = Reshape (s, to) z = Flatten (r)", "Spikes", {"to": np.array([0, 0, -1])}),
    ("n = Shape (s) m = Gather <axis = 0> (n, first) t = Mul (m, three) k = Concat <axis = 0> (t, rest)"
     " z = Reshape (s, k)", "Static", {"first": np.array([0]), "three": np.array([3]), "rest": np.array([-1])}),
    ("n = Shape (x) m = Gather <axis = 0> (n, first) k = Concat <axis = 0> (m, rest) z = Reshape (s, k)", "Spikes",
     {"first": np.array([0]), "rest": np.array([192])}),
    ("n = Shape (s) m = Gather <axis = 0> (n, first) k = Concat <axis = 0> (m, rest) z = Reshape (s, k)", "Spikes",
     {"first": np.array([0]), "rest": np.array([-1])}),
    ("n = Shape (s) m = Gather <axis = 0> (n, first) k = Concat <axis = 0> (m, rest) z = Reshape (s, k)", "Static",
     {"first": np.array([1]), "rest": np.array([-1])}),
    ("f = Flatten (s) z = Gemm <transB = 1> (f, w, b)", "Current", {"w": dyadic(7, 192), "b": dyadic(7)}),
    ("f = Flatten (s) z = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (f, w, b)", "Current",
     {"w": dyadic(7, 192), "b": dyadic(1, 7)}),
    ("f = Flatten (s) z = Gemm <transB = 1> (f, w, b)", "Static", {"w": dyadic(7, 192), "b": dyadic(5, 7)}),
    ("f = Flatten (s) z = Gemm <transA = 1> (f, w)", "Static", {"w": dyadic(5, 7)}),
    ("f = Flatten (s) z = MatMul (f, w)", "Current", {"w": dyadic(192, 7)}),
    ("f = Flatten (s) z = MatMul (w, f)", "Static", {"w": dyadic(6, 5)}),
    ("f = Flatten (s) t = Transpose (f) z = MatMul (t, f)", "Static", {}),
]  # fmt: skip


@pytest.mark.parametrize("nodes, kind, weights", FLAT_CASES)
def test_operators_that_make_matrices_of_spikes(nodes, kind, weights):
    nodes = S + nodes + "y = Identity (z)"
    assert kind_of("z", rewritten(nodes, weights=weights, **FLAT)) == kind


FIXED_BATCH_CASES = [
    ("z = Reshape (s, to)", "Spikes", {"to": np.array([5, 192])}),
    ("z = Reshape (s, to)", "Static", {"to": np.array([15, 64])}),
    ("r = Reshape (s, to) z = Flatten (r)", "Current", {"to": np.array([5, 192, 1]), **PER_CHANNEL}),
    ("r = Resize (s, , , to) z = Flatten (r)", "Spikes", {"to": np.array([5, 3, 16, 16])}),
    ("r = Resize (s, , , to) z = Flatten (r)", "Static", {"to": np.array([10, 3, 8, 8])}),
    ("a = Add (s, x) z = Flatten (a)", "Current", {}),
    ("a = Add (s, b) z = Flatten (a)", "Current", {"b": dyadic(5, 3, 8, 8)}),
    ("a = Mul (b, s) z = Flatten (a)", "Current", {"b": dyadic(5, 3, 1, 1)}),
]  # fmt: skip


@pytest.mark.parametrize("nodes, kind, weights", FIXED_BATCH_CASES)
def test_a_batch_size_that_constants_spell_out(nodes, kind, weights):
    nodes = S + nodes + "y = Identity (z)"
    result = rewritten(nodes, weights=weights, inputs="float[5, 3, 8, 8] x", **FLAT)
    assert kind_of("z", result) == kind


def test_a_batch_of_one_is_the_same_at_each_step():
    """Rows that broadcast need no copies."""
    nodes = S + "a = Add (s, b) y = GlobalAveragePool (a)"
    model = network(
        nodes, inputs="float[1, 3, 8, 8] x", outputs="float[1, 3, 1, 1] y", weights={"b": dyadic(1, 3, 8, 8)}
    )
    result = rewrite(model)
    assert kind_of("y", result) == "Current"
    assert "Tile" not in {node.op_type for node in result.model.graph.node}


def test_what_only_counted_rows_is_dropped():
    """Its input would have to be decoded for it."""
    nodes = S + "n = Shape (s) m = Gather <axis = 0> (n, first) k = Concat <axis = 0> (m, rest) z = Reshape (s, k)"
    nodes += "y = MatMul (z, w)"
    weights = {"first": np.array([0]), "rest": np.array([-1]), "w": dyadic(192, 4)}
    result = rewritten(nodes, weights=weights, **FLAT)
    operators = [node.op_type for node in result.model.graph.node]
    assert operators == ["ParallelSpike", "Reshape", "MatMul", "TemporalMean"]


def test_levels_of_split_channels_follow_them():
    nodes = S + "u, y = Split <axis = 1> (s, parts) z = Concat <axis = 2> (u, u)"
    weights = {"parts": np.array([1, 2]), **PER_CHANNEL}
    kinds = rewritten(nodes, weights=weights, outputs="float[N, 2, 8, 8] y, float[N, 1, 16, 8] z").plan.kinds
    np.testing.assert_array_equal(kinds["u"].levels[:, -1], [0.5])
    np.testing.assert_array_equal(kinds["y"].levels[:, -1], [1, 4])


def test_levels_of_concatenated_channels_follow_them():
    two = qcfs("x", "u").replace("theta", "other") + S
    nodes = two + "z = Concat <axis = 1> (u, s) y = MaxPool <kernel_shape = [2, 2]> (z)"
    result = rewritten(nodes, weights={"other": 4.0, **PER_CHANNEL}, **OPEN)
    kind = result.plan.kinds["y"]
    assert kind.channel_axis == 1
    np.testing.assert_array_equal(kind.levels[:, -1], [4, 4, 4, 0.5, 1, 4])


def test_tensors_of_unequal_steps_are_decoded():
    more = qcfs("x", "u").replace("count", "eight")
    result = rewritten(more + S + "y = Add (u, s)", weights={"eight": 8.0})
    assert result.plan.steps is None
    assert kind_of("y", result) == "Static"


def test_a_neuron_takes_the_steps_of_another():
    more = qcfs("x", "u").replace("count", "eight") + qcfs("u", "y")
    result = rewritten(more, weights={"eight": 8.0})
    nodes = {node.name: node for node in result.model.graph.node}
    taken = [attribute.i for node in nodes.values() for attribute in node.attribute if attribute.name == "input_steps"]
    assert taken[:2] == [1, 8]


def test_rows_that_would_broadcast_are_decoded():
    nodes = "one_row = ReduceMax (x, batch)" + S + qcfs("one_row", "r") + "y = Add (s, r)"
    result = rewritten(nodes, weights={"batch": np.array([0])})
    assert kind_of("y", result) == "Static"


def test_a_body_sees_the_decoded_value():
    """An If whose branches use tensors in time from around it."""
    nodes = (
        S
        + """
        c = Conv (s, w)
        y = If (yes) <
            then_branch = a () => (float[N, 3, 8, 8] p) { p = Mul (s, c) },
            else_branch = b () => (float[N, 3, 8, 8] q) { q = Identity (c) }
        >
    """
    )
    rewritten(nodes, weights={"w": dyadic(3, 3, 1, 1), "yes": np.array(True)})


def test_unknown_domains_are_decoded():
    from pconv_onnx.temporal.kinds import Current
    from pconv_onnx.temporal.rules import transfer
    from pconv_onnx.temporal.site import Site

    class Node:
        op, domain, inputs, outputs = "Conv", "com.example", [], []

    assert transfer(Site(None, Node(), [Current(8)])).kinds == ()


def test_what_has_no_known_rank_is_not_lifted():
    nodes = S + "u = com.example.Unknown (x) y = Concat <axis = 1> (s, u)"
    text = f'<ir_version: 10, opset_import: ["" : 20, "com.example" : 1]> test (float[N, 3, 8, 8] x)' \
        f" => (float[N, 6, 8, 8] y) <float theta = {{2.0}}, float count = {{4.0}}, float half = {{0.5}}, float zero =" \
        f" {{0.0}}, float one = {{1.0}}> {{ {nodes} }}"  # fmt: skip
    assert kind_of("y", rewrite(onnx.parser.parse_model(text))) == "Static"


def test_weights_are_left_alone():
    model = network(S + "y = Conv (s, w)", weights={"w": weight(3, 3, 1, 1)})
    kept = {tensor.name: tensor for tensor in rewrite(model).model.graph.initializer}
    assert kept["w"] == {tensor.name: tensor for tensor in model.graph.initializer}["w"]


def test_the_page_lists_every_operator_that_has_a_rule():
    page = (Path(__file__).parents[1] / "docs" / "time.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("|") and "---" not in line][1:]
    listed = [name for row in rows for name in re.findall(r"\b[A-Z]\w+", row)]
    assert sorted(listed) == sorted(TRANSFER_RULES)
