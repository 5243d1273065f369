"""Layers as matrices: what is multiplied gives what the layer gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from harness import onnxruntime_of
from networks import network, weight

from pconv_onnx import calibrate, rewrite, verify
from pconv_onnx.calibration.segments import cut
from pconv_onnx.graph import load
from pconv_onnx.recognise import recognise

VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))

# Nodes from x to a pre-activation p, the shape of x, and weights.
LAYERS = {
    "Conv": ("p = Conv <pads = [1, 0, 2, 1]> (x, w, b)", (6, 9, 8), weight(4, 6, 3, 2)),
    "strides and dilations": (
        "p = Conv <strides = [2, 3], dilations = [2, 1], pads = [2, 1, 0, 1]> (x, w, b)", (6, 9, 8), weight(4, 6, 3, 3)
    ),
    "same size": ('p = Conv <auto_pad = "SAME_UPPER"> (x, w, b)', (6, 9, 8), weight(4, 6, 3, 2)),
    "strided, padded at the start": (
        'p = Conv <auto_pad = "SAME_LOWER", strides = [2, 3]> (x, w, b)', (6, 9, 8), weight(4, 6, 2, 4)
    ),
    "without padding": ('p = Conv <auto_pad = "VALID", strides = [2, 1]> (x, w, b)', (6, 9, 8), weight(4, 6, 3, 3)),
    "groups": ("p = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w, b)", (6, 9, 8), weight(4, 3, 3, 3)),
    "depthwise": ("p = Conv <group = 6, pads = [1, 1, 1, 1]> (x, w, b)", (6, 9, 8), weight(6, 1, 3, 3)),
    "depthwise, two each": ("p = Conv <group = 6> (x, w, b)", (6, 9, 8), weight(12, 1, 3, 3)),
    "1-D": ("p = Conv <pads = [2, 2], strides = [2]> (x, w, b)", (6, 30), weight(4, 6, 5)),
    "3-D": ("p = Conv <pads = [1, 1, 1, 0, 0, 0]> (x, w, b)", (2, 5, 4, 6), weight(4, 2, 2, 2, 2)),
    "without bias": ("p = Conv (x, w)", (6, 9, 8), weight(4, 6, 3, 3)),
    "normalised": (
        "q = Conv (x, w) p = BatchNormalization (q, scale, shift, mean, variance)", (6, 9, 8), weight(4, 6, 3, 3)
    ),
    "Gemm": ("p = Gemm <transB = 1> (x, w, b)", (20,), weight(4, 20)),
    "Gemm as it is": ("p = Gemm (x, w, b)", (20,), weight(20, 4)),
    "MatMul": ("q = MatMul (x, w) p = Add (q, b)", (7, 20), weight(20, 4)),
    "MatMul of a matrix": ("p = MatMul (x, w)", (20,), weight(20, 4)),
}  # fmt: skip


def model_of(case: str, count: int = 30) -> tuple[onnx.ModelProto, np.ndarray]:
    nodes, shape, weights = LAYERS[case]
    outputs = len(weights) if "Conv" in nodes or "transB" in nodes else weights.shape[1]
    ramp = np.linspace(0.5, 2, outputs, dtype=np.float32)
    names = [name for name in ("b", "scale", "shift", "mean", "variance") if f", {name}" in nodes]
    values = {"w": weights, **dict.fromkeys(names, ramp)}
    sizes = ", ".join(map(str, ("N", *shape)))
    rank = ", ".join("abcde"[: len(shape) + 1])
    model = network(f"{nodes} y = Relu (p)", inputs=f"float[{sizes}] x", outputs=f"float[{rank}] y", weights=values)
    return model, np.random.default_rng(0).normal(0, 1, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("case", LAYERS)
def test_columns_times_weights_are_the_layer(case):
    model, x = model_of(case)
    loaded = load(model)
    (segment,) = cut(loaded, recognise(loaded))
    layer = segment.layer
    matrices, bias = layer.matrices()
    name = layer.node.output[0]
    model.graph.output.add(name=name, type=onnx.helper.make_tensor_type_proto(1, None))
    expected = onnxruntime_of(model, name)(x)
    chosen = np.random.default_rng(0).permutation(expected.size // len(layer.bias))[: expected.size // 50]
    found = matrices @ layer.columns(x, chosen)[:, :-1] + bias[:, :, np.newaxis]
    gain = layer.gain.reshape(len(bias), -1, 1)
    np.testing.assert_allclose(layer.changes(layer.rows(expected, chosen)) * gain, found, atol=1e-4)
    weights, biases = layer.arrays(matrices, bias)
    np.testing.assert_array_equal(weights, layer.weights)
    np.testing.assert_array_equal(biases, layer.bias)


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_behind_a_quantised_one_is_corrected(case):
    """What neighbours have in common tells part of what the quantisation of a ReLU takes away."""
    model, x = model_of(case, 600)
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "y"
    model.graph.node[0].input[0] = "r"
    model.graph.node.insert(0, onnx.helper.make_node("Relu", ["x"], ["r"]))
    for axis in range(1, x.ndim):
        x = x + np.roll(x, 1, axis) + np.roll(x, -1, axis)
    x, test = x[:300], x[300:]
    expected = onnxruntime_of(model)(test)
    errors = {}
    for method in ("fit", "refit"):
        result = calibrate(model, {"x": x}, steps=2, method=method)
        errors[method] = float(np.square(onnxruntime_of(result.model)(test) - expected).mean())
        assert verify(result.model, rewrite(result.model).model, {"x": test[:4]}).passed
    assert result.summary()["corrected_layers"] == 1
    assert errors["refit"] < 0.99 * errors["fit"]


def test_few_samples_do_not_mislead_a_correction():
    """Of 80 samples a layer of 200 inputs could be fitted to anything."""
    nodes = "r = Relu (x) y = Gemm (r, w)"
    model = network(nodes, inputs="float[N, 200] x", outputs="float[N, 10] y", weights={"w": weight(200, 10)})
    mixed = np.random.default_rng(0).normal(0, 1, (1080, 40)) @ np.random.default_rng(1).normal(0, 1, (40, 200))
    x, test = np.split(mixed.astype(np.float32), [80])
    expected = onnxruntime_of(model)(test)
    errors = []
    for method in ("fit", "refit"):
        found = onnxruntime_of(calibrate(model, {"x": x}, steps=2, method=method).model)(test)
        errors.append(float(np.square(found - expected).mean()))
    assert errors[1] <= errors[0]


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(
            "a = MatMul (r, w) p = BatchNormalization (a, scale, shift, mean, variance)",
            marks=pytest.mark.skipif(VERSION < (1, 21), reason="onnxruntime 1.20 makes a Gemm of it, of three axes"),
        ),
        "a = MatMul (r, w) p = Add (a, a)",
        "a = MatMul (r, w) e = Softmax (a) p = Add (a, e)",
    ],
)
def test_a_layer_stays_whose_effect_is_no_factor_a_channel(nodes):
    names = [name for name in ("scale", "shift", "mean", "variance") if name in nodes]
    model = network(
        f"r = Relu (x) {nodes} y = Relu (p)", inputs="float[N, 7, 20] x", outputs="float[N, 7, 7] y",
        weights={"w": weight(20, 7), **dict.fromkeys(names, np.linspace(0.5, 2, 7, dtype=np.float32))},
    )  # fmt: skip
    x = np.random.default_rng(0).normal(0, 1, (30, 7, 20)).astype(np.float32)
    assert not calibrate(model, {"x": x}, steps=4).found.corrections


def test_an_output_that_is_left_out_is_no_input_that_is():
    nodes = "r = Tanh (x) p = Clip (r, , six) u = Tanh (p) m = MaxPool <kernel_shape = [2, 2]> (u) y = Relu (m)"
    model = network(nodes, outputs="float[N, 3, 7, 7] y", weights={"six": 6.0})
    model.graph.node[3].output.append("")
    loaded = load(model)
    assert [[node.op_type for node in segment.nodes] for segment in cut(loaded, recognise(loaded))] == [
        [], ["Clip"], ["MaxPool"],
    ]  # fmt: skip
