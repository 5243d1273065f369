"""A network cut at its activations: each segment computes one pre-activation from inputs and earlier activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.graph import Network
from pconv_onnx.graph.network import captured
from pconv_onnx.neuron import Array
from pconv_onnx.recognise import Activation
from pconv_onnx.runtime import import_onnxruntime

# Operators between a layer and its pre-activation through which a change of the layer's output passes as it is, but
# for a factor a channel.
_ADD, _NORMALISE = "Add", "BatchNormalization"


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or matrix product whose weights may be corrected.

    Attributes:
        node: Conv with a 2-D kernel and one group, or Gemm.
        weights: as the node has them.
        bias: `[C]`.
        gain: `[C]`, by which its outputs are multiplied on their way to the pre-activation.
    """

    node: onnx.NodeProto
    weights: Array
    bias: Array
    gain: Array

    @property
    def _outputs_first(self) -> bool:
        return self.node.op_type == "Conv" or bool(_attributes(self.node).get("transB", 0))

    def matrix(self) -> tuple[Array, Array]:
        """Its weights as `[C, n]`, and its bias, in float64."""
        weights = self.weights if self._outputs_first else self.weights.T
        return weights.reshape(len(weights), -1).astype(np.float64), self.bias.astype(np.float64)

    def arrays(self, matrix: Array, bias: Array) -> tuple[Array, Array]:
        """Such a matrix and bias in the type and layout that its node takes."""
        weights = matrix if self._outputs_first else matrix.T
        return weights.reshape(self.weights.shape).astype(self.weights.dtype), bias.astype(self.weights.dtype)

    def columns(self, data: Array) -> Array:
        """What its weights are multiplied with, `[n + 1, m]` for inputs `[B, …]`; a last row of ones is for the bias.

        Columns are in the order of its outputs with channels moved to the front.
        """
        if self.node.op_type == "Gemm":
            return np.concatenate([data.T, np.ones((1, len(data)), data.dtype)])
        attributes = _attributes(self.node)
        kernel = self.weights.shape[2:]
        top, left, bottom, right = attributes.get("pads", [0] * 4)
        strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
        padded = np.pad(data.swapaxes(0, 1), ((0, 0), (0, 0), (top, bottom), (left, right)))
        height, width = (
            (size - step * (extent - 1) - 1) // stride + 1
            for size, step, extent, stride in zip(padded.shape[2:], dilations, kernel, strides, strict=True)
        )
        channels, batch = padded.shape[:2]
        result = np.ones((channels * kernel[0] * kernel[1] + 1, batch * height * width), data.dtype)
        view = result[:-1].reshape(channels, *kernel, batch, height, width)
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                view[:, row, column] = padded[
                    :,
                    :,
                    row * dilations[0] : row * dilations[0] + strides[0] * (height - 1) + 1 : strides[0],
                    column * dilations[1] : column * dilations[1] + strides[1] * (width - 1) + 1 : strides[1],
                ]
        return result


@dataclass(frozen=True, eq=False)
class Segment:
    """What lies between activations.

    Attributes:
        activation: the one that it leads to; None where it leads to an output of the model.
        target: name of the pre-activation, or of that output.
        nodes: in topological order.
        inputs: names of the activations and inputs of the model that it begins with.
        layer: the last layer before the target, where one can be corrected.
    """

    activation: Activation | None
    target: str
    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    layer: Layer | None


def cut(network: Network, activations: Sequence[Activation]) -> list[Segment]:
    """The segments before the given activations, in topological order, and those before outputs that they lead to."""
    graph = network.proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    ends = {info.name for info in graph.input} - constants | {activation.output.name for activation in activations}
    maker = {name: (index, node) for index, node in enumerate(graph.node) for name in node.output}
    # An output that is an activation itself, or an input, is nothing to compute.
    outputs = [info.name for info in graph.output if info.name not in ends]
    targets = [(activation, activation.input.name) for activation in activations] + [(None, name) for name in outputs]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    segments = []
    for activation, target in targets:
        if target in ends:
            segments.append(Segment(activation, target, (), (target,), None))
            continue
        chosen: dict[int, onnx.NodeProto] = {}
        inputs: dict[str, None] = {}
        pending = [target]
        while pending:
            name = pending.pop()
            if name in ends:
                inputs[name] = None
            elif name in maker and maker[name][0] not in chosen:
                index, node = maker[name]
                chosen[index] = node
                pending += [*node.input, *captured(node)]
        nodes = tuple(chosen[index] for index in sorted(chosen))
        segments.append(Segment(activation, target, nodes, tuple(inputs), _layer(nodes, target, values)))
    return segments


def _layer(nodes: Sequence[onnx.NodeProto], target: str, values: dict[str, Array]) -> Layer | None:
    """The last layer whose output reaches the target by sums and normalisations alone."""
    gains: dict[str, Array] = {target: np.ones(1)}
    for node in reversed(nodes):
        gain = gains.get(node.output[0]) if node.output else None
        if gain is None:
            continue
        if node.op_type == _ADD:
            for name in node.input:
                gains[name] = gain
        elif node.op_type == _NORMALISE and all(name in values for name in node.input[1:]):
            scale, variance = values[node.input[1]], values[node.input[4]]
            epsilon = _attributes(node).get("epsilon", 1e-5)
            gains[node.input[0]] = gain * scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        elif _can_be_corrected(node, values) and np.all(gain != 0):
            weights = values[node.input[1]]
            outputs = len(weights) if node.op_type == "Conv" or _attributes(node).get("transB", 0) else weights.shape[1]
            bias = values[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
            return Layer(node, weights, np.broadcast_to(bias, (outputs,)), np.broadcast_to(gain, (outputs,)))
    return None


def _can_be_corrected(node: onnx.NodeProto, values: dict[str, Array]) -> bool:
    if node.domain not in ("", "ai.onnx") or any(name and name not in values for name in node.input[1:]):
        return False
    attributes = _attributes(node)
    if node.op_type == "Gemm":
        bias = values[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
        plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta")) and not attributes.get("transA", 0)
        return plain and bias.ndim == 1
    padding = attributes.get("auto_pad", b"NOTSET")
    weights = values.get(node.input[1]) if len(node.input) > 1 else None
    is_conv = node.op_type == "Conv" and weights is not None and weights.ndim == 4
    return is_conv and attributes.get("group", 1) == 1 and padding == b"NOTSET"


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class Runner:
    """A segment in onnxruntime, with weights that may differ from the source's."""

    def __init__(self, network: Network, segment: Segment, weights: dict[str, Array], also: str = "") -> None:
        """Prepare it; `also` names a further tensor to give out."""
        used = {name for node in segment.nodes for name in (*node.input, *captured(node))}
        initializers = [
            numpy_helper.from_array(weights[tensor.name], tensor.name) if tensor.name in weights else tensor
            for tensor in network.proto.graph.initializer
            if tensor.name in used
        ]
        initializers += [numpy_helper.from_array(weights[name], name) for name in used & weights.keys()
                         if name not in {tensor.name for tensor in initializers}]  # fmt: skip
        self.names = list(dict.fromkeys((segment.target, *([also] if also else []))))
        graph = helper.make_graph(
            segment.nodes,
            "segment",
            [_info(network, name) for name in segment.inputs],
            [_info(network, name) for name in self.names],
            initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=network.proto.opset_import,
            functions=network.proto.functions,
            ir_version=network.proto.ir_version,
        )
        options = import_onnxruntime().SessionOptions()
        options.log_severity_level = 4
        self._inputs = segment.inputs
        self._session = import_onnxruntime().InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, feed: dict[str, Array]) -> dict[str, Array]:
        """What it computes from one batch."""
        found = self._session.run(self.names, {name: feed[name] for name in self._inputs})
        return dict(zip(self.names, found, strict=True))


def _info(network: Network, name: str) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(network.dtypes.get(name, np.dtype(np.float32)))
    return helper.make_tensor_value_info(name, element, None)
