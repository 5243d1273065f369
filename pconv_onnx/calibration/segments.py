"""A network cut at its activations: each segment computes one pre-activation from inputs and earlier activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.nesting import captured
from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.windows import windows
from pconv_onnx.recognise import Activation
from pconv_onnx.runtime.side_by_side import open_session, run_session

# Operators between a layer and its pre-activation through which a change of the layer's output passes as it is, but
# for a factor a channel.
_ADD, _NORMALISE = "Add", "BatchNormalization"


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or matrix product whose weights may be corrected.

    Outputs of one group, C/G of them, are computed from the same n inputs; what is not grouped is one group.

    Attributes:
        node: Conv, Gemm or MatMul.
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

    @property
    def _groups(self) -> int:
        return int(_attributes(self.node).get("group", 1))

    @property
    def inputs(self) -> int:
        """n: what each output is computed from."""
        return self.weights.size // len(self.bias)

    def matrices(self) -> tuple[Array, Array]:
        """Its weights as `[G, C/G, n]`, and its bias as `[G, C/G]`, in float64."""
        weights = (self.weights if self._outputs_first else self.weights.T).astype(np.float64)
        groups, outputs = self._groups, len(weights) // self._groups
        return weights.reshape(groups, outputs, -1), self.bias.reshape(groups, outputs).astype(np.float64)

    def arrays(self, matrices: Array, bias: Array) -> tuple[Array, Array]:
        """Such matrices and biases in the type and layout that its node takes."""
        weights = matrices.reshape(len(self.bias), -1)
        weights = weights if self._outputs_first else weights.T
        dtype = self.weights.dtype
        return weights.reshape(self.weights.shape).astype(dtype), bias.reshape(-1).astype(dtype)

    def rows(self, values: Array, chosen: Array) -> Array:
        """Some rows of values of its outputs' shape, `[C, m]`; their numbers count all but the channels."""
        axis = values.ndim - 1 if self.node.op_type == "MatMul" else 1
        by_row = np.moveaxis(values, axis, -1)
        return by_row[np.unravel_index(chosen, by_row.shape[:-1])].T

    def changes(self, rows: Array) -> Array:
        """By how much its outputs, `[G, C/G, m]`, would have to differ for the pre-activation to differ by `[C, m]`."""
        return (rows / self.gain.reshape(-1, 1)).reshape(self._groups, len(rows) // self._groups, rows.shape[1])

    def columns(self, data: Array, chosen: Array) -> Array:
        """What its weights are multiplied with for some `rows`, `[G, n + 1, m]`; a last row of ones is for the bias."""
        result = np.ones((self._groups, self.inputs + 1, len(chosen)), data.dtype)
        if self.node.op_type != "Conv":
            result[0, :-1] = data[np.unravel_index(chosen, data.shape[:-1])].T
            return result
        sizes, kernel = data.shape[2:], self.weights.shape[2:]
        along = windows(_attributes(self.node), sizes, kernel)
        sample, *places = np.unravel_index(chosen, (len(data), *(window.count for window in along)))
        by_tap = result[:, :-1].reshape(self._groups, data.shape[1] // self._groups, *kernel, len(chosen))
        for tap in np.ndindex(*kernel):
            seen = [window.positions()[place, at] for window, place, at in zip(along, places, tap, strict=True)]
            inside = np.logical_and.reduce([(0 <= at) & (at < size) for at, size in zip(seen, sizes, strict=True)])
            near = [np.clip(at, 0, size - 1) for at, size in zip(seen, sizes, strict=True)]
            found = np.where(inside, data[(sample, slice(None), *near)].T, 0)
            by_tap[(slice(None), slice(None), *tap)] = found.reshape(by_tap.shape[:2] + found.shape[1:])
        return result


def with_weights(node: onnx.NodeProto, weights: str, bias: str, product: str) -> list[onnx.NodeProto]:
    """A layer's node with a weight and a bias of other names; a MatMul, which has no bias, adds it to its `product`."""
    layer = onnx.NodeProto()
    layer.CopyFrom(node)
    if node.op_type != "MatMul":
        layer.input[:] = [node.input[0], weights, bias]
        return [layer]
    layer.input[:] = [node.input[0], weights]
    layer.output[0] = product
    name = f"{node.name}/bias" if node.name else ""
    return [layer, helper.make_node("Add", [product, bias], list(node.output), name)]


@dataclass(frozen=True, eq=False)
class Segment:
    """What lies between activations.

    Attributes:
        activation: the one that it leads to; None where it leads to one that stays, or to an output of the model.
        target: name of the pre-activation, or of that output.
        nodes: in topological order.
        inputs: names of the activations and inputs of the model that it begins with.
        layer: the last layer before the target, where one can be corrected.
        maxima: the pooling behind the activation, where only its maxima are read.
        readout: the one that it leads to and that stays; None for none.
    """

    activation: Activation | None
    target: str
    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    layer: Layer | None
    maxima: Segment | None = None
    readout: Activation | None = None


def cut(network: Network, activations: Sequence[Activation], readouts: Sequence[Activation] = ()) -> list[Segment]:
    """The segments before the given activations, in topological order, and those before outputs that they lead to.

    Between them are those before readouts, which are not cut: segments before outputs go through them.
    """
    graph = network.proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    ends = {info.name for info in graph.input} - constants | {activation.output.name for activation in activations}
    # An output without a name is one that is left out, as an input without a name is.
    maker = {name: (index, node) for index, node in enumerate(graph.node) for name in node.output if name}
    # An output that is an activation itself, or an input, is nothing to compute.
    outputs = [info.name for info in graph.output if info.name not in ends]
    targets: list[tuple[Activation | None, Activation | None, str]] = [
        *((activation, None, activation.input.name) for activation in activations),
        *((None, readout, readout.input.name) for readout in readouts),
        *((None, None, name) for name in outputs),
    ]
    values = _constants(network)
    segments = []
    for activation, readout, target in targets:
        if target in ends:
            segments.append(Segment(activation, target, (), (target,), None, readout=readout))
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
        layer = _layer(nodes, target, values, len(network.shapes.get(target, ())))
        # An Add may spread what a layer gives over more than that; its columns are not the target's then.
        if layer is not None and not _may_be_equal(*(network.shapes.get(n) for n in (layer.node.output[0], target))):
            layer = None
        segments.append(Segment(activation, target, nodes, tuple(inputs), layer, readout=readout))
    return segments


def layers_of(network: Network) -> list[Layer]:
    """All layers that can be corrected, by themselves."""
    values = _constants(network)
    return [_layer_at(node, values, np.ones(1)) for node in network.proto.graph.node if _can_be_corrected(node, values)]


def _constants(network: Network) -> dict[str, Array]:
    """Values of initializers and of Constant nodes, by tensor."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.proto.graph.initializer}
    for node in network.nodes:
        value = constant(node.outputs[0]) if node.op == "Constant" else None
        if value is not None:
            values[node.outputs[0].name] = value
    return values


def _may_be_equal(first: tuple[Dimension, ...] | None, second: tuple[Dimension, ...] | None) -> bool:
    """Whether two shapes are known and do not differ in a number."""
    if first is None or second is None or len(first) != len(second):
        return False
    pairs = zip(first, second, strict=True)
    return all(not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in pairs)


def _layer(nodes: Sequence[onnx.NodeProto], target: str, values: dict[str, Array], rank: int) -> Layer | None:
    """The last layer whose output reaches the target, of that rank, by sums and normalisations alone."""
    gains: dict[str, Array] = {target: np.ones(1)}
    uses = Counter(name for node in nodes for name in (*node.input, *captured(node)))
    for node in reversed(nodes):
        gain = gains.get(node.output[0]) if node.output else None
        # What reaches the target in two ways changes it by more than its gain.
        if gain is None or uses[node.output[0]] > 1:
            continue
        if node.op_type == _ADD:
            for name in node.input:
                gains[name] = gain
        elif node.op_type == _NORMALISE and all(name in values for name in node.input[1:]):
            scale, variance = values[node.input[1]], values[node.input[4]]
            epsilon = _attributes(node).get("epsilon", 1e-5)
            gains[node.input[0]] = gain * scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        elif _can_be_corrected(node, values) and np.all(gain != 0):
            # Normalised is axis 1, and channels of a MatMul come last.
            if node.op_type == "MatMul" and gain.size > 1 and rank != 2:
                return None
            return _layer_at(node, values, gain)
    return None


def _layer_at(node: onnx.NodeProto, values: dict[str, Array], gain: Array) -> Layer:
    weights = values[node.input[1]]
    outputs = len(weights) if node.op_type == "Conv" or _attributes(node).get("transB", 0) else weights.shape[1]
    bias = values[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
    return Layer(node, weights, np.broadcast_to(bias, (outputs,)), np.broadcast_to(gain, (outputs,)))


def _can_be_corrected(node: onnx.NodeProto, values: dict[str, Array]) -> bool:
    if not is_standard(node) or any(name and name not in values for name in node.input[1:]):
        return False
    if node.op_type in ("MatMul", "Gemm", "Conv") and not values[node.input[1]].size:
        return False  # without weights there is nothing to correct
    attributes = _attributes(node)
    if node.op_type == "MatMul":
        return values[node.input[1]].ndim == 2
    if node.op_type == "Gemm":
        bias = values[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
        plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta")) and not attributes.get("transA", 0)
        return plain and bias.ndim == 1
    return node.op_type == "Conv"


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class Runner:
    """A segment in onnxruntime, with weights that may differ from the source's."""

    def __init__(self, network: Network, segment: Segment, weights: dict[str, Array], also: str = "") -> None:
        """Prepare it; `also` names a further tensor to give out.

        Raises:
            PconvError: onnxruntime refuses it.
        """
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
            sparse_initializer=[t for t in network.proto.graph.sparse_initializer if t.values.name in used],
        )
        model = helper.make_model(
            graph,
            opset_imports=network.proto.opset_import,
            functions=network.proto.functions,
            ir_version=network.proto.ir_version,
        )
        self._inputs = segment.inputs
        self._session = open_session(model, f"{network.name} as far as '{segment.target}'")

    def __call__(self, feed: dict[str, Array]) -> dict[str, Array]:
        """What it computes from one batch.

        Raises:
            PconvError: onnxruntime fails while it runs.
        """
        found = run_session(self._session, {name: feed[name] for name in self._inputs}, self.names)
        # What onnxruntime gives of an input is the input's own memory, which 1.20 does not keep.
        return {name: feed.get(name, value) for name, value in zip(self.names, found, strict=True)}


def _info(network: Network, name: str) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(network.dtypes.get(name, np.dtype(np.float32)))
    return helper.make_tensor_value_info(name, element, None)
