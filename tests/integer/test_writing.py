"""Weights of rows in the layout of their node: what was read comes back."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight

from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.graph.record import ACTIVATION
from pconv_onnx.integer.reading import read
from pconv_onnx.integer.units import Layer
from pconv_onnx.integer.writing import native
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.rewriting import rewrite

LAYERS = {
    "Conv": ("y = Conv (a, w)", (5, 4, 3, 3), 1),
    "Conv in groups": ("y = Conv <group = 2> (a, w)", (6, 2, 3, 1), 1),
    "depthwise": ("y = Conv <group = 4> (a, w)", (8, 1, 3, 3), 1),
    "ConvTranspose": ("y = ConvTranspose (a, w)", (4, 5, 2, 3), 1),
    "ConvTranspose in groups": ("y = ConvTranspose <group = 2> (a, w)", (4, 3, 2, 2), 1),
    "Gemm": ("f = Flatten (a) y = Gemm (f, w)", (256, 5), 1),
    "Gemm, transB": ("f = Flatten (a) y = Gemm <transB = 1> (f, w)", (5, 256), 1),
    "MatMul": ("y = MatMul (a, w)", (8, 5), 3),
}


def layer_of(nodes: str, weights: np.ndarray) -> Layer:
    model = network(
        f"{qcfs('x', 'a')} {nodes}", inputs="float[N, 4, 8, 8] x", outputs="float[N] y", weights={"w": weights}
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (layer,) = [step for step in read(make_plan(prepared(model)), [], 8).steps if isinstance(step, Layer)]
    return layer


@pytest.mark.parametrize("case", LAYERS)
def test_rows_come_back_in_the_layout_of_the_node(case):
    nodes, shape, axis = LAYERS[case]
    weights = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    layer = layer_of(nodes, weights)
    np.testing.assert_array_equal(native(layer, layer.weights), weights)
    assert layer.accumulator.channels == len(layer.weights) == len(layer.bias)


@pytest.mark.parametrize("case", LAYERS)
def test_a_row_is_what_an_output_channel_reads(case):
    """Weights of one row alone move that channel alone."""
    nodes, shape, axis = LAYERS[case]
    layer = layer_of(nodes, weight(*shape))
    for channel in (0, len(layer.weights) // 2, len(layer.weights) - 1):
        rows = np.zeros_like(layer.weights)
        rows[channel] = 1
        model = network(nodes, inputs="float[N, 4, 8, 8] a", outputs="float[N] y",
                        weights={"w": native(layer, rows).astype(np.float32)})  # fmt: skip
        model.graph.output[0].type.tensor_type.ClearField("shape")
        values = onnxruntime.InferenceSession(model.SerializeToString()).run(
            None, {"a": np.ones((1, 4, 8, 8), np.float32)}
        )[0]
        moved = np.flatnonzero(values.any(axis=tuple(other for other in range(values.ndim) if other != axis)))
        assert moved.tolist() == [channel]


@pytest.mark.parametrize("case", ["Conv in groups", "depthwise", "ConvTranspose in groups"])
def test_each_weight_is_for_the_channel_that_it_multiplies(case):
    """A unit a channel changes the weights of that channel."""
    nodes, shape, _ = LAYERS[case]
    layer = layer_of(nodes, weight(*shape))
    for channel in range(4):
        rows = (layer.contracted == channel).astype(np.float32)
        model = network(nodes, inputs="float[N, 4, 8, 8] a", outputs="float[N] y",
                        weights={"w": native(layer, np.broadcast_to(rows, layer.weights.shape))})  # fmt: skip
        model.graph.output[0].type.tensor_type.ClearField("shape")
        runner = onnxruntime.InferenceSession(model.SerializeToString())
        x = np.ones((1, 4, 8, 8), np.float32)
        full = runner.run(None, {"a": x})[0]
        x[:, channel] = 0
        assert full.any()
        assert not runner.run(None, {"a": x})[0].any()


def test_a_tensor_of_integers_has_the_name_of_its_source_and_values_keep_it(small_network):
    form = rewrite(small_network, weights="int8", mode="folded").integers.model
    outputs = [name for node in form.graph.node for name in node.output]
    assert {"a/integer", "p/integer", "d/integer", "b/integer", "f/integer", "y/integer", "c", "y"} <= set(outputs)
    # Nothing asks for the values of what is between.
    assert not {"a", "p", "d", "b", "f"} & set(outputs)
    assert [info.name for info in form.graph.output] == ["y"]


def test_nodes_keep_their_names_and_activations_are_named(small_network):
    model = onnx.ModelProto()
    model.CopyFrom(small_network)
    next(node for node in model.graph.node if node.output[0] == "d").name = "second"
    form = rewrite(model, weights="int8", mode="folded").integers.model
    names = {node.op_type: node.name for node in form.graph.node if node.op_type in ("Conv", "MaxPool", "MatMul")}
    assert names == {"Conv": "second", "MaxPool": "p", "MatMul": "y"}
    named = {entry.value for node in form.graph.node for entry in node.metadata_props if entry.key == ACTIVATION}
    assert named == {"a_code", "b_code"}
